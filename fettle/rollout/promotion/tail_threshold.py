"""Tail threshold (running p95) of latency: what "slow" means, learnt in place from both arms.

Two thresholds. Above the first lie 5 % of both arms' answers, each arm weighing the same, so that
equal arms are above it alike whatever one of them does for a while by itself. The second is that of
a champion and of a challenger sped up by the plan's ratio, so that one exactly at the ratio is
above it as often as the champion. Both start at the 95th percentile of the first WARM_UP answers of
the champion, or of its log (champion_history.py), never at a single one, which may be 0 ms by
rounding; and follow by stochastic approximation (Robbins and Monro 1951). The tests hold at any
value of them, since they are set before the request; only their power depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import Bools, Floats, Rows, sizes

SLOW = 0.05  # the share above a p95
# Follows a doubling in about 250 requests. What both arms share (a machine that wanders over 500
# requests) would else make the arms' difference larger and smaller for long, as stalls do.
GAIN = 0.02
WARM_UP = 100  # answers before it is a p95 to speak of: five slow ones
# An arm with less than a quarter of the requests weighs less: each of its answers would move it.
ARM_TIMES_MOST = 2.0


@dataclass
class TailThreshold:
    """The thresholds and where they come from, [rows, …]."""

    log_tau: Floats
    log_tau_within: Floats
    seen: Floats  # champion answers, WARM_UP at least where a log was known
    first: Floats  # [rows, WARM_UP] log milliseconds of the first answers
    worst: Floats  # the largest `log_tau_within` so far, -inf before there is one


def start(
    rows: int = 1, log_tau: Floats | None = None, worst: Floats | None = None
) -> TailThreshold:
    """Return the state before any request; `log_tau` and `worst` where a log tells them."""
    known = sizes(rows) if log_tau is None else log_tau
    return TailThreshold(
        log_tau=known.copy(),
        log_tau_within=known.copy(),
        seen=np.full(rows, float(0 if log_tau is None else WARM_UP)),
        first=np.asfortranarray(sizes(rows, WARM_UP)),
        worst=np.full(rows, -np.inf) if worst is None else worst.copy(),
    )


def ready(state: TailThreshold) -> Bools:
    """Say where the thresholds are some."""
    known: Bools = state.seen >= WARM_UP
    return known


def slow(
    state: TailThreshold, log_ms: Floats, challenger: Bools, log_ratio: Floats
) -> tuple[Bools, Bools]:
    """Say which answers, [rows], lie above the first threshold, and above the second."""
    return log_ms > state.log_tau, log_ms - challenger * log_ratio > state.log_tau_within


def update(
    state: TailThreshold,
    log_ms: Floats,
    above: tuple[Bools, Bools],
    *,
    champion: Bools,
    answered: Bools,
    chance: Floats,
) -> None:
    """Take one answer a row, arrays [rows]; chance: of the arm that it was drawn for."""
    known = ready(state)
    times = np.minimum(0.5 / np.maximum(chance, 0.01), ARM_TIMES_MOST)
    rate = np.where(answered & known, GAIN * times, 0.0)
    state.log_tau += rate * (above[0] - SLOW)
    state.log_tau_within += rate * (above[1] - SLOW)
    learning = np.flatnonzero(champion & answered & ~known)
    if learning.size:
        _learn(state, learning, log_ms)
    larger = np.maximum(state.worst, state.log_tau_within)
    state.worst = np.where(known, larger, state.worst)


def _learn(state: TailThreshold, at: Rows, log_ms: Floats) -> None:
    """Keep a first answer, and start the thresholds where it was the last of them."""
    state.first[at, state.seen[at].astype(int)] = log_ms[at]
    state.seen[at] += 1
    done = at[state.seen[at] == WARM_UP]
    if done.size:
        found = np.quantile(state.first[done], 1 - SLOW, axis=1)
        state.log_tau[done] = state.log_tau_within[done] = found
