"""Watch what makes every other gate's answer worthless: a wrong split, drifting inputs.

A guard never rolls back: its alarm is about the experiment and not about the challenger. A wrong
split is an ERROR (weight 0, a person is asked), drifting inputs hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import (
    EQUAL_PRIOR,
    OTHER,
    WORSE,
    WORSE_PRIOR,
    Bools,
    Floats,
    fresh,
    log_e,
    origin,
    reaches,
)
from fettle.rollout.promotion.request_records import Arm

# A false alarm costs a person's look, not a release: 1 in 1,000 rollouts felt right.
ALPHA_GUARD = 0.001
LOG_GUARD = float(-np.log(ALPHA_GUARD))


@dataclass
class SampleRatio:
    """Whether the router splits as it was told (sample-ratio mismatch); [rows, …].

    `origin` over every request that was drawn, bet in both directions: Lindon and Malek 2022.
    """

    wealth: Floats
    alarm: Bools


def start_split(rows: int = 1) -> SampleRatio:
    """Return the state before any request."""
    return SampleRatio(wealth=fresh(rows, EQUAL_PRIOR), alarm=np.zeros(rows, bool))


def update_split(
    state: SampleRatio, challenger: Bools, *, propensity: Floats, counts: Bools
) -> None:
    """Take one drawn request a row; arrays [rows]."""
    at = np.flatnonzero(counts & (propensity > 0) & (propensity < 1))
    if at.size:
        state.wealth[at] += origin(OTHER, propensity[at], challenger[at])
    state.alarm |= reaches(state.wealth, LOG_GUARD)


def renew_split(state: SampleRatio, rows: Bools) -> None:
    """Begin anew in these rows."""
    state.wealth[rows] = EQUAL_PRIOR
    state.alarm[rows] = False


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


def start_drift(reference: Sequence[float], tolerance: float) -> Drift:
    """Return the state before any input; `reference`: the shares of the bins, summing to 1."""
    limits = np.minimum(np.asarray(reference, float) + tolerance, 0.999)
    arms = (Arm.CHAMPION, Arm.CHALLENGER)
    return Drift(
        limits=limits,
        wealth={arm: fresh(len(limits), WORSE_PRIOR) for arm in arms},
        n=dict.fromkeys(arms, 0),
        alarm=dict.fromkeys(arms, False),
    )


def update_drift(state: Drift, arm: Arm, bin_index: int) -> None:
    """Take one input of one arm."""
    hit = np.arange(len(state.limits)) == bin_index
    state.wealth[arm] += origin(WORSE, state.limits, hit)
    state.n[arm] += 1
    state.alarm[arm] |= drift_evidence(state, arm) >= LOG_GUARD


def drift_evidence(state: Drift, arm: Arm) -> float:
    """Return the log e-value against "no drift" on this arm."""
    return float(np.logaddexp.reduce(log_e(state.wealth[arm])) - np.log(len(state.limits)))
