"""Recipe search: what stages/compress.py does when params.yaml says `recipe: auto`.

fettle/recipes/search asks, fettle/recipes/recipe_evaluator.py answers with real models. Only
training and validation images are looked at; of the test set its size alone is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from fettle import plugins
from fettle.evaluation import passing_probability
from fettle.facts.search_document import SearchDocument
from fettle.hardware import precisions
from fettle.hardware.operator_cost_table import Costs
from fettle.params_schema import Options
from fettle.recipes import recipe_evaluator, search_report, undecided_trials
from fettle.recipes.cost_model import CostModel
from fettle.recipes.recipe_evaluator import RecipeEvaluator
from fettle.recipes.recovery_training import CompressionJob, example_input
from fettle.recipes.search.bracketing import accepted
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.search_loop import SearchLimits, search
from fettle.recipes.search.search_result import SearchResult
from fettle.recipes.search.trial import Trial
from fettle.recipes.search.trial_journal import TrialJournal
from fettle.recipes.training_setup import threads

JOURNAL = "search.jsonl"  # in scratch: it outlives a kill
FRONT_BUDGETS = 2.5  # how far beyond the budget's drop `search.aim: front` looks


@dataclass(frozen=True, slots=True)
class SearchedRecipe:
    """Recipe found by the search, and search.json's document."""

    recipe: list[Options]
    document: SearchDocument


def search_recipe(
    job: CompressionJob,
    tested: int,
    costs: Mapping[str, Costs],
    *,
    clock: SearchClock | None = None,
) -> SearchedRecipe:
    """Recipe search within `job.scratch`, which keeps the journal and every model tried.

    `tested` is the number of test images; `costs` is the latency table, by target. `clock` runs
    already where something of the search's time was spent before.
    """
    torch.set_num_threads(threads())
    goal = job.params.compress
    clock = clock or SearchClock(goal.search.wall_clock_max_s)
    cost_model = CostModel(
        minimise=goal.objective.minimise,
        constraints=goal.constraints,
        bytes_per_weight=bytes_per_weight(goal.objective.target, job.params.targets),
        example=example_input(job),
        costs=costs,
    )
    evaluator = RecipeEvaluator(
        replace(job, trials=goal.search.evaluations_max), cost_model, tested, clock
    )
    root = evaluator.score(evaluator.root)
    limits = limits_of(job, tested)
    best = root.value

    def on_trial(trial: Trial) -> None:
        nonlocal best
        evaluator.trials_done = trial.number
        if accepted(trial.result, limits.chance_min):
            best = min(best, trial.result.value)
        job.recorder.note(f"trial {trial.number}", describe_trial(trial, cost_model.unit))
        job.recorder.scalar("search_best_value", best, step=trial.number)
        if not trial.result.refused:
            job.recorder.scalar("search_value", trial.result.value, step=trial.number)
            job.recorder.scalar("search_drop", trial.result.drop, step=trial.number)

    result = search(
        root,
        evaluator,
        TrialJournal(job.scratch / JOURNAL, "recipe: auto"),
        limits=limits,
        clock=clock,
        on_trial=on_trial,
    )
    chosen = result.trials[result.best]
    say_outcome(job, result, limits, tested, cost_model.unit)
    doc = search_report.document(
        result, goal, limits, unit=cost_model.unit, priced_by=cost_model.source
    )
    return SearchedRecipe([dict(step) for step in chosen.recipe], doc)


def say_outcome(
    job: CompressionJob, result: SearchResult, limits: SearchLimits, tested: int, unit: str
) -> None:
    """Tell the recorder how the trials ended, what the clock cut, and what was left ready."""
    job.recorder.note("search", search_report.tally(result).sentence())
    if result.truncated:
        job.recorder.note("decision", f"search: {search_report.stop_reason(result, limits)}")
    left = undecided_trials.left_ready(
        result,
        job.params.compress.budget,
        seen=len(job.validation.labels),
        tested=tested,
        unit=unit,
    )
    if left:
        job.recorder.note("decision", f"search: {left}")


def limits_of(job: CompressionJob, tested: int) -> SearchLimits:
    """Search limits that the params ask for, in what this data's epochs are."""
    goal = job.params.compress
    return SearchLimits(
        evaluations_max=goal.search.evaluations_max,
        chance_min=passing_probability.probability_min(
            goal.budget, seen=len(job.validation.labels), tested=tested
        ),
        final_epochs=recipe_evaluator.capped_epochs(job, goal.search.final_epochs),
        work_max=goal.search.steps_max / recipe_evaluator.epoch_steps(job),
        front_drop_max=FRONT_BUDGETS * goal.budget.drop_share
        if goal.search.aim == "front"
        else None,
    )


def bytes_per_weight(on: str | None, targets: Sequence[str]) -> float:
    """Bytes a weight takes in the smallest file that may be served; a layer or two aside."""
    names = targets if on is None else [on]
    records = [plugins.resolve("targets", name, where="targets").TARGET for name in names]
    served = [one for one in records if one.evidence == "measured"] or records
    return min(precisions.named(one.precision).bytes_per_weight for one in served)


def describe_trial(trial: Trial, unit: str) -> str:
    """Trial in one line: its steps, and what they gave."""
    steps = " > ".join(str(step["use"]) for step in trial.recipe)
    if trial.result.refused:
        return f"{steps}: refused, {trial.result.refused}"
    return (
        f"{steps}: {trial.result.value:.4g} {unit}, {100 * trial.result.drop:+.2f} points lost on "
        f"validation, the budget holds on test with probability {trial.result.chance:.2f}"
    )
