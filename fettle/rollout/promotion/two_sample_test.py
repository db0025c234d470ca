"""Two-sample rate test (sequential): how often are two arms bad, by errors or wrong answers?

A row is one rollout: the controller has one, the simulator thousands, the code is the same.
State arrays are changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import (
    STAKES,
    WORSE,
    WORSE_PRIOR,
    Bools,
    Floats,
    Rows,
    excess,
    fresh,
    log_e,
    origin,
    reaches,
    sizes,
)

# The champion's own recent rate is a mean over about so many of its requests: long enough not to
# jump at a chance error, short enough to see an outage within seconds at 100 requests/s.
RECENT_REQUESTS = 100


@dataclass
class TwoSampleTest:
    """Sufficient statistics, [rows, …]; columns of `n` and `bad`: champion, challenger."""

    worse: Floats  # [rows, bets] log wealth against "not worse"
    expected: Floats  # Σ exposure · margin
    surplus: Floats  # Σ D
    squared: Floats  # Σ D²
    n: Floats
    bad: Floats
    recent: Floats  # the champion's recent rate of bad requests
    passed: Bools  # has ever proved "not worse by the margin" since the start
    failed: Bools


def start(rows: int = 1) -> TwoSampleTest:
    """Return the state before any request."""
    return TwoSampleTest(
        worse=fresh(rows, WORSE_PRIOR),
        expected=sizes(rows),
        surplus=sizes(rows),
        squared=sizes(rows),
        n=sizes(rows, 2),
        bad=sizes(rows, 2),
        recent=sizes(rows),
        passed=np.zeros(rows, bool),
        failed=np.zeros(rows, bool),
    )


def update(
    state: TwoSampleTest,
    challenger: Bools,
    bad: Bools,
    *,
    propensity: Floats,
    margin: float | Floats,
    log_fail: float,
    effect: Floats | None = None,
) -> None:
    """Take one request a row, arrays [rows], and set `failed` where the evidence reaches it.

    effect: [rows], by which each gain is divided (cluster_effect.py); None where requests are
    independent.
    """
    tells = (propensity > 0) & (propensity < 1)
    exposure = np.where(tells, propensity, 0.0)
    _tally(state, challenger, bad, tells)
    champion = tells & ~challenger
    state.recent += np.where(champion, (bad - state.recent) / RECENT_REQUESTS, 0.0)
    state.expected += exposure * margin
    at = np.flatnonzero(bad & tells)
    if at.size:
        w, c = propensity[at], challenger[at]
        _bet(state, at, w, c, log_fail, effect)
        _add(state, at, np.where(c, 1.0, -w / (1 - w)))


def look(
    state: TwoSampleTest,
    *,
    log_pass: float | Floats,
    hold_above: float = 1.0,
    rows: Bools | None = None,
) -> None:
    """Set `passed` where the evidence reaches the threshold, in these rows (None: all).

    A pass stays: an e-process is valid at the first moment it crosses. Where the champion's own
    recent rate lies above `hold_above`, both may be failing together, and nothing passes.
    """
    # no bet can be worth more than its whole stake on the gap: spares most looks
    near = ~state.passed if rows is None else rows & ~state.passed
    near = near & ((state.expected - state.surplus) * STAKES[-1] >= log_pass)
    near &= state.recent <= hold_above
    at = np.flatnonzero(near)
    if at.size:
        wealth = excess(state.expected[at], state.surplus[at], state.squared[at])
        bar = np.broadcast_to(log_pass, near.shape)[at]
        state.passed[at] = log_e(wealth) >= bar


def _tally(state: TwoSampleTest, challenger: Bools, bad: Bools, tells: Bools) -> None:
    arms = (tells & ~challenger, tells & challenger)
    for column, rows in enumerate(arms):
        state.n[:, column] += rows
        state.bad[:, column] += rows & bad


def _bet(
    state: TwoSampleTest,
    at: Rows,
    propensity: Floats,
    challenger: Bools,
    log_fail: float,
    effect: Floats | None,
) -> None:
    gain = origin(WORSE, propensity, challenger)
    state.worse[at] += gain if effect is None else gain / effect[at][:, None]
    state.failed[at] |= reaches(state.worse[at], log_fail)


def _add(state: TwoSampleTest, at: Rows, d: Floats) -> None:
    state.surplus[at] += d
    state.squared[at] += d * d


def renew(state: TwoSampleTest, rows: Bools) -> None:
    """Begin a step anew in these rows; what is known of the champion goes on."""
    state.worse[rows] = WORSE_PRIOR
    for one in (state.expected, state.surplus, state.squared, state.n, state.bad):
        one[rows] = 0
    state.passed[rows] = state.failed[rows] = False
