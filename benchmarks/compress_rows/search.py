"""The search on digits: how far it gets in 2, 5 and 15 minutes, and against trying everything.

Anytime: one long search, its trials with the seconds they ended at; a reduction is the smaller of
the parameters' and the MACs' ratio, of the best trial so far that loses at most one point on
validation and that the search accepts. Front: every recipe of at most two cuts, each with and
without its recovery, against the trials of a search that may make a fifth as many evaluations from
the same moves; both within the root's objective and five points. There every technique proposes its
mildest and its harshest cut, and trainings are short (SHORT): with all proposals at the search's
own epochs the exhaustive side alone takes hours.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.context import Context, Prepared
from benchmarks.table import Row
from fettle import manifest
from fettle.recorder import Memory
from fettle.search.descent import Limits, search
from fettle.search.front import hypervolume
from fettle.search.journal import Journal
from fettle.search.trial import Move, Recipe, Result
from fettle.sections import Compress
from stages import _foresight, _search
from stages._price import Price
from stages._recovery import Job, example

WHAT = "the search: reduction over time, and its front against the exhaustive one (digits)"
GOAL = ">= 10x parameters and MACs within 5 min; >= 98 % of the hypervolume at 1/5"

AFTER_S = (120, 300, 900)
REDUCTION_MIN, DROP_MAX, SHARE_MIN = 10.0, 0.01, 0.98
CUTS_MAX, REFERENCE_DROP = 2, 0.05
SHORT = {"trial_epochs": 1, "final_epochs": 4}
GOAL_PARAMS = {"evaluations_max": 60, "wall_clock_max_s": 900.0}


class Clock(Memory):
    """Note when each trial ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.ended = time.monotonic(), list[float]()

    def note(self, name: str, text: str) -> None:
        super().note(name, text)
        if name.startswith("trial "):
            self.ended.append(time.monotonic() - self.started)


def run(context: Context) -> list[Row]:
    """Measure both on digits; other sets take too long to try everything on."""
    if "digits" not in context.data:
        return []
    one = context.prepare("digits")
    return [*anytime(one), front(one)]


def anytime(one: Prepared) -> list[Row]:
    """Search once, long; read the curve off its trials."""
    folder, clock = Path(tempfile.mkdtemp(prefix="fettle-search-")), Clock()
    found = _search.find(job_of(one, folder, clock, GOAL_PARAMS), tested_of(one), {})
    shutil.rmtree(folder)
    trials = found.document["trials"]
    root, chance_min = trials[0], found.document["chance_min"]
    rows = []
    for limit in AFTER_S:
        done = [
            row
            for row, ended in zip(trials[1:], clock.ended, strict=True)
            if ended <= limit and row.get("drop", 1) <= DROP_MAX and row["chance"] >= chance_min
        ]
        best = max((reduction(root, row) for row in done), default=1.0)
        goal = f">= {REDUCTION_MIN:g}" if limit == 300 else "printed"
        rows.append(
            Row(
                f"digits: times fewer parameters and MACs after {limit} s of search",
                best,
                None,
                None,
                "x",
                len([ended for ended in clock.ended if ended <= limit]),
                goal,
                limit != 300 or best >= REDUCTION_MIN,
                f"at <= {100 * DROP_MAX:g} point on validation; n counts evaluations",
            )
        )
    return rows


def reduction(root: dict[str, Any], row: dict[str, Any]) -> float:  # Any: rows of search.json
    """Return the smaller of the two ratios."""
    return float(min(root["params"] / row["params"], root["macs"] / row["macs"]))


class Narrow:
    """A workbench whose moves from a recipe are each technique's mildest and harshest alone."""

    def __init__(self, bench: _search.Bench) -> None:
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


def front(one: Prepared) -> Row:
    """Try everything within two cuts, then search with a fifth of the evaluations."""
    folder = Path(tempfile.mkdtemp(prefix="fettle-front-"))
    whole = bench_of(one, folder / "all")
    bench, root = Narrow(whole), whole.look(whole.root)
    everything: list[Result] = []

    def walk(recipe: Recipe) -> None:
        for move in bench.moves(recipe):
            further = (*recipe, move.step)
            result = bench.evaluate(further)
            if result.refused:
                continue
            everything.append(result)
            if move.role == "shrink" and len(further) < CUTS_MAX:
                walk(further)

    walk(())
    most = len(everything) // 5
    found = search(
        root,
        Narrow(bench_of(one, folder / "some")),
        Journal(folder / "journal", "bench"),
        limits=Limits(
            evaluations_max=most,
            chance_min=_foresight.chance_min(
                one.params.compress.budget,
                seen=len(one.images("validation").labels),
                tested=tested_of(one),
            ),
            final_epochs=SHORT["final_epochs"],
        ),
        out_of_time=lambda: False,
        on_trial=lambda _: None,
    )
    shutil.rmtree(folder)
    tried = [trial.result for trial in found.trials[1:] if not trial.result.refused]
    share = _area(tried, root) / _area(everything, root)
    return Row(
        "digits: share of the exhaustive front's hypervolume at a fifth of its evaluations",
        share,
        None,
        None,
        "1",
        len(everything),
        f">= {SHARE_MIN:g}",
        share >= SHARE_MIN,
        f"{len(tried)} evaluations of at most {most}; the search aims at the objective inside the "
        "budget, not at the whole front",
    )


def _area(results: Sequence[Result], root: Result) -> float:
    points = [(one.value, one.drop) for one in results]
    return hypervolume([(root.value, root.drop), *points], (root.value, REFERENCE_DROP))


def bench_of(one: Prepared, folder: Path) -> _search.Bench:
    """Make the workbench that compress would use, on macs: counted, the same everywhere."""
    job = job_of(one, folder, Memory(), SHORT)
    price = Price(
        minimise="macs",
        also=one.params.compress.also,
        bytes_per_weight=1,
        example=example(job),
        costs={},
    )
    return _search.Bench(replace(job, trials=2), price, tested_of(one))


def job_of(one: Prepared, folder: Path, recorder: Memory, asked: Mapping[str, float]) -> Job:
    """Make compress's job, its objective macs."""
    settings: Compress = one.params.compress
    goal = settings.model_copy(
        update={
            "objective": settings.objective.model_copy(update={"minimise": "macs"}),
            "search": settings.search.model_copy(update=asked),
        }
    )
    return Job(
        params=one.params.model_copy(update={"compress": goal}),
        recipe=[],
        facts=manifest.read(one.inputs["finetune"], verify=False).facts,
        weights=one.inputs["finetune"] / "model.safetensors",
        project=one.inputs.project,
        scratch=folder,
        train=one.images("train"),
        validation=one.images("validation"),
        recorder=recorder,
    )


def tested_of(one: Prepared) -> int:
    """Count the test images."""
    return len(one.images("test").labels)
