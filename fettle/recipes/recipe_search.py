"""Search for the recipe: what stages/compress.py does when params.yaml says `recipe: auto`.

Lends fettle/recipes/search a workbench of real models (fettle/recipes/recipe_evaluator.py). Only
training and validation images are looked at; of the test set its size alone is known.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fettle import plugins
from fettle.evaluation import passing_probability
from fettle.hardware import precisions
from fettle.hardware.operator_cost_table import Costs
from fettle.params_schema import Options
from fettle.recipes import search_report
from fettle.recipes.cost_model import CostModel
from fettle.recipes.recipe_evaluator import RecipeEvaluator
from fettle.recipes.recovery_training import CompressionJob, example_input
from fettle.recipes.search.search_loop import SearchLimits, accepted, search
from fettle.recipes.search.trial import Trial
from fettle.recipes.search.trial_journal import TrialJournal
from fettle.recipes.training_setup import threads

JOURNAL = "search.jsonl"  # in scratch: it outlives a kill
FRONT_BUDGETS = 2.5  # how far beyond the budget's drop `search.aim: front` looks


@dataclass(frozen=True, slots=True)
class SearchedRecipe:
    """The recipe found, and search.json's document (Any: JSON)."""

    recipe: list[Options]
    document: dict[str, Any]


def search_recipe(job: CompressionJob, tested: int, costs: Mapping[str, Costs]) -> SearchedRecipe:
    """Search within `job.scratch`, which keeps the journal and every model tried.

    `tested` is the number of test images; `costs` is the latency table, by target.
    """
    torch.set_num_threads(threads())
    goal, started = job.params.compress, time.monotonic()
    price = CostModel(
        minimise=goal.objective.minimise,
        also=goal.also,
        bytes_per_weight=bytes_per_weight(goal.objective.on, job.params.targets),
        example=example_input(job),
        costs=costs,
    )
    bench = RecipeEvaluator(replace(job, trials=goal.search.evaluations_max), price, tested)
    root = bench.look(bench.root)
    limits = SearchLimits(
        evaluations_max=goal.search.evaluations_max,
        chance_min=passing_probability.probability_min(
            goal.budget, seen=len(job.validation.labels), tested=tested
        ),
        final_epochs=goal.search.final_epochs,
        front_drop_max=FRONT_BUDGETS * goal.budget.drop_max if goal.search.aim == "front" else None,
    )
    best = root.value

    def on_trial(one: Trial) -> None:
        nonlocal best
        if accepted(one.result, limits.chance_min):
            best = min(best, one.result.value)
        job.recorder.note(f"trial {one.number}", describe_trial(one, price.unit))
        job.recorder.scalar("search_best_value", best, step=one.number)
        if not one.result.refused:
            job.recorder.scalar("search_value", one.result.value, step=one.number)
            job.recorder.scalar("search_drop", one.result.drop, step=one.number)

    found = search(
        root,
        bench,
        TrialJournal(job.scratch / JOURNAL, "recipe: auto"),
        limits=limits,
        out_of_time=lambda: time.monotonic() - started > goal.search.wall_clock_max_s,
        on_trial=on_trial,
    )
    chosen = found.trials[found.best]
    doc = search_report.document(found, goal, limits, unit=price.unit, priced_by=price.source)
    return SearchedRecipe([dict(step) for step in chosen.recipe], doc)


def bytes_per_weight(on: str | None, targets: Sequence[str]) -> float:
    """Return what a weight takes in the smallest file that may ship; a layer or two aside."""
    names = targets if on is None else [on]
    found = [plugins.resolve("targets", name, where="targets").TARGET.precision for name in names]
    return min(precisions.named(one).bytes_per_weight for one in found)


def describe_trial(one: Trial, unit: str) -> str:
    """Say what a trial was and found, in one line."""
    steps = " > ".join(str(step["use"]) for step in one.recipe)
    if one.result.refused:
        return f"{steps}: refused, {one.result.refused}"
    return (
        f"{steps}: {one.result.value:.4g} {unit}, {100 * one.result.drop:+.2f} points lost on "
        f"validation, the budget holds on test with probability {one.result.chance:.2f}"
    )
