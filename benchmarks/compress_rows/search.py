"""The search on digits: how far it gets in 2, 5 and 15 minutes.

One long search, its trials with the seconds they ended at; a reduction is the smaller of the
parameters' and the MACs' ratio, of the best trial so far that loses at most one point on
validation and that the search accepts.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.compression import benchmark_search
from benchmarks.context import Context
from fettle.recipes import recipe_search
from fettle.recorder import MemoryRecorder

WHAT = "the search: reduction of parameters and MACs over time (digits)"
GOAL = ">= 10x parameters and MACs within 5 min"

AFTER_S = (120, 300, 900)
REDUCTION_MIN, DROP_MAX = 10.0, 0.01
SETTINGS = {"evaluations_max": 60, "wall_clock_max_s": 900.0}


class Clock(MemoryRecorder):
    """Note when each trial ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.ended = time.monotonic(), list[float]()

    def note(self, name: str, text: str) -> None:
        super().note(name, text)
        if name.startswith("trial "):
            self.ended.append(time.monotonic() - self.started)


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Search once, long; read the curve off its trials."""
    if "digits" not in context.data:
        return
    one = context.prepare("digits")
    folder, clock = Path(tempfile.mkdtemp(prefix="fettle-search-")), Clock()
    found = recipe_search.search_recipe(
        benchmark_search.job(one, folder, clock, SETTINGS), benchmark_search.tested(one), {}
    )
    shutil.rmtree(folder)
    trials = found.document["trials"]
    root, chance_min = trials[0], found.document["chance_min"]
    for limit in AFTER_S:
        done = [
            row
            for row, ended in zip(trials[1:], clock.ended, strict=True)
            if ended <= limit and row.get("drop", 1) <= DROP_MAX and row["chance"] >= chance_min
        ]
        what = f"digits: times fewer parameters and MACs after {limit} s of search"
        goal = f">= {REDUCTION_MIN:g}" if limit == 300 else ""
        ended_by = len([ended for ended in clock.ended if ended <= limit])
        if not ended_by:
            yield benchmark_row.not_measured(what, "x", goal, why="no evaluation had ended")
            continue
        best = max((reduction(root, row) for row in done), default=1.0)
        yield benchmark_row.measured(
            what,
            best,
            unit="x",
            n=ended_by,
            seeds=[one.params.seed],
            goal=goal,
            holds=best >= REDUCTION_MIN,
            note=f"at <= {100 * DROP_MAX:g} point on validation; n counts evaluations",
        )


def reduction(root: dict[str, Any], row: dict[str, Any]) -> float:  # Any: rows of search.json
    """Return the smaller of the two ratios."""
    return float(min(root["params"] / row["params"], root["macs"] / row["macs"]))
