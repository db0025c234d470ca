"""The search against trying everything (digits).

Everything: each recipe of at most two cuts, with and without its recovery. Against it: the trials
of a search that aims at the front (`compress.search.aim`) and may make a fifth as many evaluations
of the same moves; both within the root's objective and five points. Every technique proposes its
mildest and its harshest cut, and trainings are short (SHORT): with all proposals at the search's
own epochs the exhaustive side takes hours. It measures no time: it may run on a busy machine.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.compression import benchmark_search
from benchmarks.context import Context, Prepared
from fettle.evaluation import passing_probability
from fettle.recipes import recipe_evaluator
from fettle.recipes.search.pareto_front import hypervolume
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.search_loop import SearchLimits, search
from fettle.recipes.search.trial import Move, Recipe, Result
from fettle.recipes.search.trial_journal import TrialJournal

WHAT = "the search's front against the exhaustive one (digits)"
GOAL = ">= 98 % of the hypervolume at 1/5 of the evaluations"

SHARE_MIN = 0.98
CUTS_MAX, REFERENCE_DROP = 2, 0.05
SHORT = {"trial_epochs": 1, "final_epochs": 4}


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure on digits; other sets take too long to try everything on."""
    if "digits" in context.data:
        yield from fronts(context.prepare("digits"))


class Narrow:
    """A trial evaluator whose moves from a recipe are each technique's mildest and harshest
    alone.
    """

    def __init__(self, bench: recipe_evaluator.RecipeEvaluator) -> None:
        self.bench = bench

    def moves(self, recipe: Recipe) -> list[Move]:
        """List the first and the last cut of every technique, and the recovery."""
        kept: dict[str, list[Move]] = {}
        for move in self.bench.moves(recipe):
            kept.setdefault(str(move.step["use"]), []).append(move)
        return [
            move
            for own in kept.values()
            for move in (own if len(own) < 2 else own[:: len(own) - 1])
        ]

    def evaluate(self, recipe: Recipe) -> Result:
        """As the search does."""
        return self.bench.evaluate(recipe)

    def chance(self, drop: float) -> float:
        """As the search does."""
        return self.bench.chance(drop)


def fronts(one: Prepared) -> Iterator[BenchmarkRow]:
    """Try everything within two cuts, then search with a fifth of the evaluations."""
    folder = Path(tempfile.mkdtemp(prefix="fettle-front-"))
    whole = benchmark_search.bench(one, folder / "all", SHORT)
    root, results = whole.score(whole.root), everything(Narrow(whole))
    total, most = len(results), len(results) // 5
    found = sought(one, root, folder, most)
    shutil.rmtree(folder)
    area = _area(results, root)
    shares = [_area(found[: at + 1], root) / area for at in range(len(found))]
    needed = next((index + 1 for index, share in enumerate(shares) if share >= SHARE_MIN), None)
    note = f"{len(found)} evaluations of at most {most}"
    seeds = [one.params.seed]
    yield benchmark_row.measured(
        "digits: share of the exhaustive front's hypervolume at a fifth of its evaluations",
        shares[-1],
        unit="1",
        n=total,
        seeds=seeds,
        goal=f">= {SHARE_MIN:g}",
        holds=shares[-1] >= SHARE_MIN,
        note=note,
    )
    what = f"digits: evaluations for {SHARE_MIN:.0%} of the exhaustive front's hypervolume"
    goal = f"<= {most}, a fifth"
    if needed is None:
        reason = f"{shares[-1]:.3f} of it after {note}"
        yield benchmark_row.without_value(
            what, "evaluations", goal, n=total, seeds=seeds, reason=reason
        )
        return
    yield benchmark_row.measured(
        what,
        needed,
        unit="evaluations",
        n=total,
        seeds=seeds,
        goal=goal,
        holds=True,
        note=note,
    )


def everything(bench: Narrow) -> list[Result]:
    """Evaluate every recipe of at most CUTS_MAX cuts; what is refused is left out."""
    found: list[Result] = []

    def walk(recipe: Recipe) -> None:
        for move in bench.moves(recipe):
            further = (*recipe, move.step)
            result = bench.evaluate(further)
            if result.refused:
                continue
            found.append(result)
            if move.role == "shrink" and len(further) < CUTS_MAX:
                walk(further)

    walk(())
    return found


def sought(one: Prepared, root: Result, folder: Path, most: int) -> list[Result]:
    """Search for the front with at most `most` evaluations; what they found, in order."""
    made = search(
        root,
        Narrow(benchmark_search.bench(one, folder / "some", SHORT)),
        TrialJournal(folder / "journal", "bench"),
        limits=SearchLimits(
            evaluations_max=most,
            chance_min=passing_probability.probability_min(
                one.params.compress.budget,
                seen=len(one.images("validation").labels),
                tested=benchmark_search.tested(one),
            ),
            final_epochs=SHORT["final_epochs"],
            front_drop_max=REFERENCE_DROP,
        ),
        clock=SearchClock(),
        on_trial=lambda _: None,
    )
    return [trial.result for trial in made.trials[1:]]


def _area(results: Sequence[Result], root: Result) -> float:
    points = [(result.value, result.drop) for result in results if not result.refused]
    return hypervolume([(root.value, root.drop), *points], (root.value, REFERENCE_DROP))
