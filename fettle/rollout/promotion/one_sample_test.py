"""One-sample rate test (sequential): is the share of some event under a limit?

`over` speaks against "the share is at most the limit", `under` against "it is at least that";
both are of e_process.py, with the limit in the place of the propensity and of the margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import (
    WORSE,
    WORSE_PRIOR,
    Bools,
    Floats,
    excess,
    fresh,
    origin,
    reaches,
    sizes,
)


@dataclass
class OneSampleTest:
    """Sufficient statistics, [rows, …]."""

    over: Floats  # [rows, bets] log wealth against "at most the limit"
    expected: Floats  # Σ limit
    events: Floats
    n: Floats
    passed: Bools
    failed: Bools


def start(rows: int = 1) -> OneSampleTest:
    """Return the state before any request."""
    none = np.zeros(rows, bool)
    return OneSampleTest(
        over=fresh(rows, WORSE_PRIOR),
        expected=sizes(rows),
        events=sizes(rows),
        n=sizes(rows),
        passed=none,
        failed=none.copy(),
    )


def update(
    state: OneSampleTest, event: Bools, *, limit: Floats, counts: Bools, log_fail: float
) -> None:
    """Take one request a row, arrays [rows], and set `failed` where the evidence reaches it."""
    at = np.flatnonzero(counts)
    if at.size:
        state.over[at] += origin(WORSE, limit[at], event[at])
        state.expected[at] += limit[at]
        state.events[at] += event[at]
        state.n[at] += 1
        state.failed[at] |= reaches(state.over[at], log_fail)


def look(state: OneSampleTest, *, log_pass: float) -> None:
    """Set `passed` where the share is proved to lie under the limit."""
    wealth = excess(state.expected, state.events, state.events)
    state.passed |= reaches(wealth, log_pass)


def renew(state: OneSampleTest, rows: Bools) -> None:
    """Begin anew in these rows."""
    state.over[rows] = WORSE_PRIOR
    state.expected[rows] = state.events[rows] = state.n[rows] = 0
    state.passed[rows] = state.failed[rows] = False
