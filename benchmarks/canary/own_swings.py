"""Swings of each arm by itself: more errors, slower answers, by one law for both arms.

Each returns, for a world and the arm that a request was drawn for, what is added to its error rate
and to the log of its milliseconds. "Requests" are the arm's own where a stall wanders, and the
router's where it starts and ends: a restart takes its time whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.canary.worlds import CALM, Array, Mask, World

Own = Callable[[World, Mask], tuple[Array, Array]]
BURST = 0.2  # errors within a burst


def wandering(length: float, spread: float) -> Own:
    """Let each arm's log latency swing, correlated over `length` of its own requests."""
    rho = float(np.exp(-1 / length))

    def swing(world: World, challenger: Mask) -> tuple[Array, Array]:
        own = world.state.setdefault("own", world.rng.standard_normal((world.rows, 2)))
        rows, arm = np.arange(world.rows), challenger.astype(int)
        noise = np.sqrt(1 - rho**2) * world.rng.standard_normal(world.rows)
        own[rows, arm] = rho * own[rows, arm] + noise
        return np.zeros(world.rows), spread * own[rows, arm]

    return swing


def rare_stalls(length: int, every: int) -> Own:
    """Make an arm 4 times slower for `length` requests, once in `every`."""

    def swing(world: World, challenger: Mask) -> tuple[Array, Array]:
        on = _on(world, challenger, 1 / length, np.full(2, 1 / (every - length)))
        return np.zeros(world.rows), np.where(on, np.log(4), 0.0)

    return swing


def error_bursts(length: int) -> Own:
    """Let an arm fail 20 % for `length` requests, so often that its errors are 1 % in all."""

    def swing(world: World, challenger: Mask) -> tuple[Array, Array]:
        more = np.array([0.0, world.challenger.bursts])
        share = (0.01 + more - CALM) / (BURST - CALM)
        on = _on(world, challenger, 1 / length, share / (1 - share) / length)
        return np.where(on, BURST - CALM, 0.0), np.zeros(world.rows)

    return swing


def restarts(length: int, share: float) -> Own:
    """Let an arm fail every request of `length`, for this share of the time."""

    def swing(world: World, challenger: Mask) -> tuple[Array, Array]:
        on = _on(world, challenger, 1 / length, np.full(2, share / (1 - share) / length))
        return np.where(on, 1.0, 0.0), np.zeros(world.rows)

    return swing


def _on(world: World, challenger: Mask, ends: float, starts: Array) -> Mask:
    """Move both arms' states on by one request; return that of the arm that is asked."""
    on = world.state.setdefault("on", np.zeros((world.rows, 2), bool))
    u = world.rng.random((world.rows, 2))
    on = world.state["on"] = np.where(on, u > ends, u < starts)
    out: Mask = on[np.arange(world.rows), challenger.astype(int)]
    return out
