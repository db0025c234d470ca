"""Sample ratio mismatch (SRM): does the router split the traffic as it was told?

With a wrong split every other gate's answer is worthless. Its alarm is about the experiment and
not about the challenger, so it never rolls back: it is an ERROR (weight 0, a person is asked).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import (
    EQUAL_PRIOR,
    LOG_VALIDITY,
    OTHER,
    Bools,
    Floats,
    fresh,
    origin,
    reaches,
)


@dataclass
class SampleRatio:
    """Whether the router splits as it was told (sample-ratio mismatch); [rows, …].

    `origin` over every request that was drawn, bet in both directions: Lindon and Malek 2022.
    """

    wealth: Floats
    alarm: Bools


def start(rows: int = 1) -> SampleRatio:
    """Return the state before any request."""
    return SampleRatio(wealth=fresh(rows, EQUAL_PRIOR), alarm=np.zeros(rows, bool))


def update(state: SampleRatio, challenger: Bools, *, propensity: Floats, counts: Bools) -> None:
    """Take one drawn request a row; arrays [rows]."""
    at = np.flatnonzero(counts & (propensity > 0) & (propensity < 1))
    if at.size:
        state.wealth[at] += origin(OTHER, propensity[at], challenger[at])
    state.alarm |= reaches(state.wealth, LOG_VALIDITY)


def renew(state: SampleRatio, rows: Bools) -> None:
    """Begin anew in these rows."""
    state.wealth[rows] = EQUAL_PRIOR
    state.alarm[rows] = False
