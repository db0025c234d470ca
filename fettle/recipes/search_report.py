"""Search report, search.json: every trial with what it bought, cost, and why."""

from __future__ import annotations

import io
import math
from collections import Counter

from ruamel.yaml import YAML

from fettle.facts.asked_goal import AskedBudget, AskedObjective
from fettle.facts.compress_facts import TrialTally
from fettle.facts.search_document import (
    ConvergencePoint,
    SearchDocument,
    TrialVerdict,
    TriedRecipe,
)
from fettle.params_schema import Compress, Options
from fettle.recipes.search import surrogate_model
from fettle.recipes.search.bracketing import accepted
from fettle.recipes.search.search_loop import SearchLimits
from fettle.recipes.search.search_result import SearchResult
from fettle.recipes.search.trial import Trial


def document(
    search: SearchResult, goal: Compress, limits: SearchLimits, *, unit: str, priced_by: str
) -> SearchDocument:
    """Search report, search.json: trials with verdicts, the front, the predictor's errors."""
    best = search.trials[search.best]
    recipe = [dict(step) for step in best.recipe]
    return SearchDocument(
        objective=AskedObjective.model_validate(goal.objective.recorded()),
        aim=goal.search.aim,
        budget=AskedBudget.model_validate(goal.budget.recorded()),
        unit=unit,
        priced_by=priced_by,
        evaluations=len(search.trials) - 1,
        evaluations_max=goal.search.evaluations_max,
        ended=search.ended,
        truncated=search.truncated,
        cut=search.cut,
        goal_met=search.met,
        why=stop_reason(search, limits),
        chance_min=limits.chance_min,
        best=search.best,
        front=tuple(search.front),
        recipe=tuple(recipe),
        recipe_yaml=as_yaml(recipe),
        tally=tally(search),
        predictor=surrogate_model.prediction_errors(search.trials),
        curve=convergence_curve(search, limits),
        trials=tuple(trial_row(trial, search, unit, limits) for trial in search.trials),
    )


def stop_reason(search: SearchResult, limits: SearchLimits) -> str:
    """Stop reason: how the search ended, and what is missing when the goal is not met."""
    best, tried = search.trials[search.best].result, len(search.trials) - 1
    ends = {
        "settled": f"after {tried} evaluations nothing promised more",
        "evaluations": f"stopped at its bound of {limits.evaluations_max} evaluations",
        "steps": f"stopped at its bound of training steps after {tried} evaluations",
        "clock": f"truncated by search.wall_clock_max_s after {tried} evaluations",
    }
    end = ends[search.ended]
    if search.cut:
        shown = "; ".join(search.cut)
        within = "" if search.ended == "clock" else "search.wall_clock_max_s cut it: "
        end = f"{end}; {within}{shown}"
    if search.met:
        return end
    if best.excess > 1:
        miss = f"the nearest model is {best.excess:.2f} times a limit of compress.constraints"
    else:
        miss = (
            f"the likeliest model holds the budget on test with probability {best.chance:.2f}, "
            f"below {limits.chance_min:.2f}"
        )
    return f"goal not met: {miss}; {end}"


def tally(search: SearchResult) -> TrialTally:
    """Tally of the trials by how they ended; the float model is none."""
    tried = list(zip(search.trials, search.standings, strict=True))[1:]
    counts = Counter(stands for _, stands in tried)
    work = math.fsum(trial.result.work for trial, _ in tried)
    well = math.fsum(trial.result.work for trial, stands in tried if stands != "failed")
    return TrialTally(
        passed=counts["passed"],
        near=counts["near"],
        collapsed=counts["failed"],
        work=work,
        well_spent=well / work if work else None,
    )


def convergence_curve(search: SearchResult, limits: SearchLimits) -> tuple[ConvergencePoint, ...]:
    """Convergence curve: best accepted value after each evaluation, its parameters, its MACs."""
    rows, best = [], search.trials[0]
    for trial in search.trials:
        better = trial.result.value < best.result.value
        if accepted(trial.result, limits.chance_min) and better:
            best = trial
        rows.append(
            ConvergencePoint(
                evaluations=trial.number,
                value=best.result.value,
                params=best.result.figures["params"],
                macs=best.result.figures["macs"],
            )
        )
    return tuple(rows)


def trial_row(trial: Trial, search: SearchResult, unit: str, limits: SearchLimits) -> TriedRecipe:
    """Trial as a row of the report: what it bought, what it cost, why it was taken or refused."""
    verdict, reason = trial_verdict(trial, search, limits)
    row = TriedRecipe(
        number=trial.number,
        parent=trial.parent,
        role=trial.role,
        recipe=tuple(dict(step) for step in trial.recipe),
        verdict=verdict,
        reason=reason,
        standing=search.standings[trial.number] if trial.number else None,
        work=trial.result.work,
    )
    if trial.result.refused:
        return row
    figures: dict[str, float | str | None] = {
        "value": trial.result.value,
        "foreseen_value": trial.foreseen_value,
        "drop": trial.result.drop,
        "foreseen_drop": trial.foreseen_drop,
        "untrained_drop": trial.probe,
        "chance": trial.result.chance,
        "excess": trial.result.excess,
        **trial.result.figures,
    }
    if trial.parent >= 0:
        before = search.trials[trial.parent].result
        figures["bought"] = f"{before.value / trial.result.value:.2f}x less ({unit})"
        figures["cost"] = f"{100 * (trial.result.drop - before.drop):+.2f} points on validation"
    return TriedRecipe.model_validate({**row.model_dump(exclude_unset=True), **figures})


def trial_verdict(
    trial: Trial, search: SearchResult, limits: SearchLimits
) -> tuple[TrialVerdict, str]:
    """Verdict on a trial: "chosen", "kept" (on the front), "beaten" or "refused"; the reason."""
    result = trial.result
    if trial.number == search.best:
        return "chosen", stop_reason(search, limits)
    if result.refused:
        return "refused", result.refused
    if result.excess > 1:
        return "refused", f"{result.excess:.2f} times a limit of compress.constraints"
    if result.chance < limits.chance_min:
        return "refused", (
            f"the budget would hold on test with probability {result.chance:.2f}, below "
            f"{limits.chance_min:.2f}"
        )
    if trial.number in search.front:
        return "kept", "no other trial is better in both the objective and the drop"
    return "beaten", "another trial is better in the objective and loses no more"


def as_yaml(recipe: list[Options]) -> str:
    """Recipe in YAML, as params.yaml would hold it under compress.recipe.

    The technique comes first, its options by name: a journal keeps no order of its own.
    """
    steps = [{"use": step["use"], **dict(sorted(step.items()))} for step in recipe]
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = None
    yaml.width = 200
    yaml.dump({"recipe": steps}, text)
    return text.getvalue()
