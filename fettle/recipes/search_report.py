"""Describe what a search found: search.json, every trial with what it bought, cost, and why."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from fettle.params_schema import Compress, Options
from fettle.recipes.search import surrogate_model
from fettle.recipes.search.search_loop import SearchLimits, SearchResult, accepted
from fettle.recipes.search.trial import Trial


def document(
    found: SearchResult, goal: Compress, limits: SearchLimits, *, unit: str, priced_by: str
) -> dict[str, Any]:  # Any: JSON
    """Return search.json: every trial with its verdict, the front, and how well it was foreseen."""
    best = found.trials[found.best]
    recipe = [dict(step) for step in best.recipe]
    return {
        "objective": goal.objective.model_dump(),
        "aim": goal.search.aim,
        "budget": goal.budget.model_dump(),
        "unit": unit,
        "priced_by": priced_by,
        "evaluations": len(found.trials) - 1,
        "evaluations_max": goal.search.evaluations_max,
        "ended": found.ended,
        "truncated": found.ended == "clock",
        "goal_met": found.met,
        "why": stop_reason(found, limits),
        "chance_min": limits.chance_min,
        "best": found.best,
        "front": found.front,
        "recipe": recipe,
        "recipe_yaml": as_yaml(recipe),
        "predictor": surrogate_model.prediction_errors(found.trials),
        "curve": convergence_curve(found, limits),
        "trials": [trial_row(trial, found, unit, limits) for trial in found.trials],
    }


def stop_reason(found: SearchResult, limits: SearchLimits) -> str:
    """Say how the search ended, and what is missing when the goal is not met."""
    best, tried = found.trials[found.best].result, len(found.trials) - 1
    ends = {
        "settled": f"after {tried} evaluations nothing promised more",
        "evaluations": f"stopped at its bound of {limits.evaluations_max} evaluations",
        "clock": f"truncated by search.wall_clock_max_s after {tried} evaluations",
    }
    if found.met:
        return ends[found.ended]
    if best.excess > 1:
        miss = f"the nearest model is {best.excess:.2f} times a limit of compress.also"
    else:
        miss = (
            f"the likeliest model holds the budget on test with probability {best.chance:.2f}, "
            f"below {limits.chance_min:.2f}"
        )
    return f"goal not met: {miss}; {ends[found.ended]}"


def convergence_curve(found: SearchResult, limits: SearchLimits) -> list[dict[str, float]]:
    """Return the best accepted value after each evaluation, with its parameters and MACs."""
    rows, best = [], found.trials[0]
    for trial in found.trials:
        better = trial.result.value < best.result.value
        if accepted(trial.result, limits.chance_min) and better:
            best = trial
        kept = {name: best.result.figures[name] for name in ("params", "macs")}
        rows.append({"evaluations": trial.number, "value": best.result.value, **kept})
    return rows


def trial_row(
    one: Trial, found: SearchResult, unit: str, limits: SearchLimits
) -> dict[str, Any]:  # Any: JSON
    """Return one trial: what it bought, what it cost, and why it was taken or refused."""
    verdict, reason = trial_verdict(one, found, limits)
    base: dict[str, Any] = {
        "number": one.number,
        "parent": one.parent,
        "role": one.role,
        "recipe": [dict(step) for step in one.recipe],
        "verdict": verdict,
        "reason": reason,
    }
    if one.result.refused:
        return base
    figures: Mapping[str, float] = one.result.figures
    base |= {
        "value": one.result.value,
        "foreseen_value": one.foreseen_value,
        "drop": one.result.drop,
        "foreseen_drop": one.foreseen_drop,
        "untrained_drop": one.probe,
        "chance": one.result.chance,
        "excess": one.result.excess,
        **figures,
    }
    if one.parent >= 0:
        before = found.trials[one.parent].result
        base["bought"] = f"{before.value / one.result.value:.2f}x less ({unit})"
        base["cost"] = f"{100 * (one.result.drop - before.drop):+.2f} points on validation"
    return base


def trial_verdict(one: Trial, found: SearchResult, limits: SearchLimits) -> tuple[str, str]:
    """Return "chosen", "kept" (on the front), "beaten" or "refused", and the reason."""
    result = one.result
    if one.number == found.best:
        return "chosen", stop_reason(found, limits)
    if result.refused:
        return "refused", result.refused
    if result.excess > 1:
        return "refused", f"{result.excess:.2f} times a limit of compress.also"
    if result.chance < limits.chance_min:
        return "refused", (
            f"the budget would hold on test with probability {result.chance:.2f}, below "
            f"{limits.chance_min:.2f}"
        )
    if one.number in found.front:
        return "kept", "no other trial is better in both the objective and the drop"
    return "beaten", "another trial is better in the objective and loses no more"


def as_yaml(recipe: list[Options]) -> str:
    """Write the recipe as params.yaml would hold it under compress.recipe.

    The technique comes first, its options by name: a journal keeps no order of its own.
    """
    steps = [{"use": step["use"], **dict(sorted(step.items()))} for step in recipe]
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = None
    yaml.width = 200
    yaml.dump({"recipe": steps}, text)
    return text.getvalue()
