"""Champion history: what the router's log tells of the champion from before the rollout.

Its clusters of bad requests, the p95 that "slow" starts from, and how bad its worst thousand
requests were, at all the traffic: what a busy hour looks like. A bake or a watch raises an alarm
only beyond that. Pinned in the journal, so that a replay needs no log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion import cluster_effect
from fettle.rollout.promotion.cluster_effect import SIZES
from fettle.rollout.promotion.e_process import Bools, Floats, sizes
from fettle.rollout.promotion.tail_threshold import SLOW, WARM_UP

BLOCK = int(SIZES[-1])
Sums = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChampionHistory:
    """The history of one rollout's champion, plain values; logs of milliseconds."""

    requests: int
    log_tau: float
    worst_log_tau: float
    worst_errors: float
    errors: Sums
    refused: Sums


@dataclass
class HistoryArrays:
    """The same for many rollouts at once, [rows, …]; fed by whole blocks of BLOCK requests."""

    log_tau: Floats
    worst_log_tau: Floats
    worst_errors: Floats
    errors: Floats  # [rows, scales, 3]
    refused: Floats
    requests: int = 0

    @classmethod
    def empty(cls, rows: int) -> HistoryArrays:
        """Return the history of nothing."""
        scales = len(SIZES)
        return cls(
            log_tau=sizes(rows),
            worst_log_tau=np.full(rows, -np.inf),
            worst_errors=sizes(rows),
            errors=sizes(rows, scales, 3),
            refused=sizes(rows, scales, 3),
        )

    def add(self, *, failed: Bools, refused: Bools, log_ms: Floats) -> None:
        """Take a block of the champion's requests, [rows, BLOCK] each, in order."""
        errors, worst = cluster_effect.of_blocks(failed)
        self.errors += errors
        self.worst_errors = np.maximum(self.worst_errors, worst)
        self.refused += cluster_effect.of_blocks(refused)[0]
        answered = ~failed & ~refused
        ordered = np.sort(np.where(answered, log_ms, -np.inf), axis=1)
        slow = np.ceil(answered.sum(axis=1) * SLOW).astype(int)
        known = answered.sum(axis=1) >= WARM_UP
        tau = ordered[np.arange(len(ordered)), BLOCK - np.maximum(slow, 1)]
        self.log_tau = np.where(known, tau, self.log_tau)
        self.worst_log_tau = np.where(
            known, np.maximum(self.worst_log_tau, tau), self.worst_log_tau
        )
        self.requests += failed.shape[1]


def learn(*, failed: Bools, refused: Bools, log_ms: Floats) -> ChampionHistory | None:
    """Return the history of one champion's requests, [n] each in order; None of too few."""
    made = HistoryArrays.empty(1)
    for at in range(len(failed) % BLOCK, len(failed), BLOCK):  # the newest whole blocks
        cut = slice(at, at + BLOCK)
        made.add(failed=failed[None, cut], refused=refused[None, cut], log_ms=log_ms[None, cut])
    if not np.isfinite(made.worst_log_tau[0]):
        return None
    errors, refusals = (
        tuple((float(a), float(b), float(c)) for a, b, c in one[0])
        for one in (made.errors, made.refused)
    )
    return ChampionHistory(
        requests=made.requests,
        log_tau=float(made.log_tau[0]),
        worst_log_tau=float(made.worst_log_tau[0]),
        worst_errors=float(made.worst_errors[0]),
        errors=errors,
        refused=refusals,
    )


def arrays(history: ChampionHistory) -> HistoryArrays:
    """Return one champion's history as arrays of one row."""
    return HistoryArrays(
        log_tau=np.array([history.log_tau]),
        worst_log_tau=np.array([history.worst_log_tau]),
        worst_errors=np.array([history.worst_errors]),
        errors=np.array([history.errors]),
        refused=np.array([history.refused]),
        requests=history.requests,
    )
