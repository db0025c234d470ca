"""Tail threshold (running p95) of the champion's latency: what "slow" means, learnt in place.

It starts at the 95th percentile of the first WARM_UP answers, or of the log from before the rollout
(champion_history.py), and follows by stochastic approximation (Robbins and Monro 1951): never from
a single answer, which may be 0 ms by rounding. The tests hold at any value of it, since it is set
before the request; only their power depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import Bools, Floats, sizes

SLOW = 0.05  # the share above a p95
# Follows a doubling of the champion's p95 in about 700 of its requests: slower than a stall,
# faster than a day.
GAIN = 0.007
WARM_UP = 100  # answers before it is a p95 to speak of: five slow ones


@dataclass
class TailThreshold:
    """The threshold and where it comes from, [rows, …]."""

    log_tau: Floats
    seen: Floats  # champion answers, WARM_UP at least where a log was known
    first: Floats  # [rows, WARM_UP] log milliseconds of the first answers
    worst: Floats  # the largest log_tau so far, -inf before there is one


def start(
    rows: int = 1, log_tau: Floats | None = None, worst: Floats | None = None
) -> TailThreshold:
    """Return the state before any request; `log_tau` and `worst` where a log tells them."""
    known = log_tau is not None
    return TailThreshold(
        log_tau=sizes(rows) if log_tau is None else log_tau.copy(),
        seen=np.full(rows, float(WARM_UP if known else 0)),
        first=np.asfortranarray(sizes(rows, WARM_UP)),
        worst=np.full(rows, -np.inf) if worst is None else worst.copy(),
    )


def ready(state: TailThreshold) -> Bools:
    """Say where the threshold is one."""
    known: Bools = state.seen >= WARM_UP
    return known


def update(state: TailThreshold, log_ms: Floats, champion: Bools) -> None:
    """Take one answer a row, arrays [rows]; only the champion's count."""
    learning = champion & (state.seen < WARM_UP)
    moves = champion & ~learning
    slow = log_ms > state.log_tau
    state.log_tau += np.where(moves, GAIN * (slow - SLOW), 0.0)
    at = np.flatnonzero(learning)
    if at.size:
        state.first[at, state.seen[at].astype(int)] = log_ms[at]
    state.seen += champion
    done = np.flatnonzero(learning & (state.seen == WARM_UP))
    if done.size:
        state.log_tau[done] = np.quantile(state.first[done], 1 - SLOW, axis=1)
    state.worst = np.where(ready(state), np.maximum(state.worst, state.log_tau), state.worst)
