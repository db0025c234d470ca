"""Latency gate: compare the tail latency (p95) of two arms, request by request.

Slow means above tau, the champion's running 95th percentile. Rollback evidence: the challenger is
above tau more often than the champion (`origin`). Promotion evidence against "its p95 is ratio
times the champion's or more": the challenger is above ratio · tau less often than the champion
above tau, that is, than a champion slowed down by the ratio would be (`origin`, r < 1). The null
is on exceedances of a threshold set before the request, so it needs no distribution and no
stationarity; it is the null on the p95 itself where tau is the champion's p95 (a quantile test by
its indicator, Howard and Ramdas 2022, "Sequential estimation of quantiles").

What the two arms share (a busy machine, the hour) cancels in `origin`. A stall of one arm alone
does not: its slow requests come in clusters, and each would count as many. The champion's own
clusters show how many: the variance of its slow requests a block, over that of a coin, is the
design effect c of Kish (1965). Each gain is divided by c ≥ 1, known before the request; by
Jensen's inequality an e-process to the power 1/c stays one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import (
    BETTER,
    EQUAL_PRIOR,
    Bools,
    Floats,
    Rows,
    fresh,
    origin,
    reaches,
    sizes,
)

SLOW = 0.05  # the share above a p95
# A stall makes even equal arms differ by large ratios for a while, so none is bet on: at 1.5 times
# the latency 2.7 is the best bet, at 3 times it still needs but some 40 slow requests.
SLOWER = np.array([1.6, 2.7, 5.0])
SLOWER_PRIOR = np.log(np.full(3, 1 / 3))
# Follows a doubling of the champion's p95 in about 700 of its requests: slower than a stall,
# faster than a day. The test holds at any value; only its power depends on it.
GAIN = 0.007
WARM_UP = 100  # champion requests before tau is a p95 to speak of: five slow ones
BLOCKS = np.array([16, 128])  # stalls of about so many requests are seen
# Until there are real blocks, PRIOR_BLOCKS count as those of requests in sixes; two standard errors
# of a variance, sqrt(2/n), lie on top; and WIDER carries what clusters longer than a block add. Set
# on stalls correlated over 50 requests, whose true effect is 7.9 (32-request blocks show 2.9, 128
# 5.5): with less, 1 to 5 % of equal challengers were rolled back there (benchmarks/sim_canary.py).
PRIOR_BLOCKS, PRIOR_EFFECT, WIDER = 4, 6.0, 1.4


@dataclass
class Latency:
    """Sufficient statistics, [rows] or [rows, …]; columns of n, slow: champion, challenger."""

    slower: Floats  # [rows, bets] log wealth against "not slower"
    quick: Floats  # [rows, bets] log wealth against "slower by the ratio"
    n: Floats
    slow: Floats
    log_tau: Floats
    seen: Floats  # champion requests since the rollout began
    block_n: Floats  # [rows, scales]
    block_slow: Floats
    blocks: Floats
    spread: Floats  # Σ over blocks of (slow - expected)² / variance of a coin's
    passed: Bools
    failed: Bools


def start(rows: int = 1) -> Latency:
    """Return the state before any request."""
    scales = len(BLOCKS)
    return Latency(
        slower=fresh(rows, SLOWER_PRIOR),
        quick=fresh(rows, EQUAL_PRIOR),
        n=sizes(rows, 2),
        slow=sizes(rows, 2),
        log_tau=sizes(rows),
        seen=sizes(rows),
        block_n=sizes(rows, scales),
        block_slow=sizes(rows, scales),
        blocks=sizes(rows, scales),
        spread=sizes(rows, scales),
        passed=np.zeros(rows, bool),
        failed=np.zeros(rows, bool),
    )


def update(
    state: Latency,
    challenger: Bools,
    log_ms: Floats,
    *,
    propensity: Floats,
    log_ratio: float | Floats,
    counts: Bools,
    log_fail: float,
    log_pass: float,
) -> None:
    """Take one request a row, arrays [rows], and set `failed`, `passed` where evidence reaches.

    log_ms: log of its milliseconds. counts: whether it was answered; a failure is no latency.
    """
    tells = counts & (propensity > 0) & (propensity < 1) & (state.seen >= WARM_UP)
    slow = log_ms > state.log_tau
    too_slow = np.where(challenger, log_ms > state.log_tau + log_ratio, slow)
    state.n += np.stack([tells & ~challenger, tells & challenger], axis=1)
    state.slow += np.stack([tells & slow & ~challenger, tells & slow & challenger], axis=1)
    for events, wealth, bets, log_bar, reached in (
        (slow, state.slower, SLOWER, log_fail, state.failed),
        (too_slow, state.quick, BETTER, log_pass, state.passed),
    ):
        at = np.flatnonzero(events & tells)
        if at.size:
            gain = origin(bets, propensity[at], challenger[at])
            wealth[at] += gain / design_effect(state, at)[:, None]
            reached[at] |= reaches(wealth[at], log_bar)
    _follow(state, slow, log_ms, counts & ~challenger)


def design_effect(state: Latency, at: Rows) -> Floats:
    """Return by how much the champion's slow requests cluster, [n], 1 or more."""
    n = state.blocks[at] + PRIOR_BLOCKS
    found = (state.spread[at] + PRIOR_BLOCKS * PRIOR_EFFECT) / n * (1 + np.sqrt(2 / n))
    effect: Floats = 1 + WIDER * np.maximum(0.0, found.max(axis=1) - 1)
    return effect


def _follow(state: Latency, slow: Bools, log_ms: Floats, champion: Bools) -> None:
    """Move tau by stochastic approximation (Robbins and Monro 1951), and close full blocks."""
    first = champion & (state.seen == 0)
    rate = np.maximum(GAIN, 1 / (1 + state.seen))
    move = np.where(champion, rate * (slow - SLOW), 0.0)
    state.log_tau[:] = np.where(first, log_ms, state.log_tau + move)
    state.seen += champion
    ready = champion & (state.seen > WARM_UP)
    state.block_n += ready[:, None]
    state.block_slow += (ready & slow)[:, None]
    at = np.nonzero(state.block_n >= BLOCKS)
    if at[0].size:
        size = BLOCKS[at[1]]
        off = state.block_slow[at] - size * SLOW
        state.spread[at] += off * off / (size * SLOW * (1 - SLOW))
        state.blocks[at] += 1
        state.block_n[at] = state.block_slow[at] = 0


def renew(state: Latency, rows: Bools) -> None:
    """Begin a step anew in these rows; tau and the clusters go on."""
    state.slower[rows], state.quick[rows] = SLOWER_PRIOR, EQUAL_PRIOR
    state.n[rows] = state.slow[rows] = 0
    state.passed[rows] = state.failed[rows] = False
