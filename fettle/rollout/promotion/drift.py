"""Data drift: do each arm's inputs still look like the training data?

Its alarm is about the experiment and not about the challenger, so it never rolls back: it holds.
The reference, bins of the training images: fettle/rollout/supervisor/drift_reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import (
    LOG_VALIDITY,
    WORSE,
    WORSE_PRIOR,
    Floats,
    fresh,
    log_e,
    origin,
)
from fettle.rollout.promotion.request_records import Arm


@dataclass
class Drift:
    """Whether each arm's inputs still look like the training data: shares of its bins.

    Null: no bin's share lies above its reference by more than the tolerance. One Bernoulli test a
    bin, and their mean over the bins.
    """

    limits: Floats  # [bins]
    wealth: dict[Arm, Floats]  # [bins, bets]
    n: dict[Arm, int]
    alarm: dict[Arm, bool]


def start(reference: Sequence[float], tolerance: float) -> Drift:
    """Return the state before any input; `reference`: the shares of the bins, summing to 1."""
    limits = np.minimum(np.asarray(reference, float) + tolerance, 0.999)
    arms = (Arm.CHAMPION, Arm.CHALLENGER)
    return Drift(
        limits=limits,
        wealth={arm: fresh(len(limits), WORSE_PRIOR) for arm in arms},
        n=dict.fromkeys(arms, 0),
        alarm=dict.fromkeys(arms, False),
    )


def update(state: Drift, arm: Arm, bin_index: int) -> None:
    """Take one input of one arm."""
    hit = np.arange(len(state.limits)) == bin_index
    state.wealth[arm] += origin(WORSE, state.limits, hit)
    state.n[arm] += 1
    state.alarm[arm] |= log_evidence(state, arm) >= LOG_VALIDITY


def log_evidence(state: Drift, arm: Arm) -> float:
    """Return the log e-value against "no drift" on this arm."""
    return float(np.logaddexp.reduce(log_e(state.wealth[arm])) - np.log(len(state.limits)))
