"""A search over the toy evaluator with a journal on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from toy_bench import FINAL_EPOCHS, ROOT, Toy

from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.search_loop import SearchLimits, search
from fettle.recipes.search.search_result import SearchResult
from fettle.recipes.search.trial import Result
from fettle.recipes.search.trial_journal import TrialJournal

fast = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def run(
    bench: Toy,
    path: Path,
    *,
    evaluations: int = 24,
    clock: Sequence[bool] = (),
    root: Result = ROOT,
) -> SearchResult:
    """Search with a fresh journal object; `clock` says at each evaluation whether time is up."""
    limit = clock.index(True) if True in clock else math.inf
    time = SearchClock(limit, now=lambda: len(bench.evaluated))  # an evaluation takes a second
    limits = SearchLimits(evaluations_max=evaluations, chance_min=0.7, final_epochs=FINAL_EPOCHS)
    return search(
        root,
        bench,
        TrialJournal(path, "toy"),
        limits=limits,
        clock=time,
        on_trial=lambda _: None,
    )
