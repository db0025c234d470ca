"""Draw what the router would see: errors and latencies of both arms, request by request.

All arrays are [rows], a row is one rollout. A world knows what the challenger does worse; what the
two arms share (bursts, the hour, outages, the users) it draws once for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MEDIAN_MS = 20.0
SPREAD = 0.5  # of the log: p95 is 2.3 times the median, p99 3.2 times
CYCLE_REQUESTS = 10_000
USERS = 20_000


@dataclass(frozen=True)
class Challenger:
    """What the challenger does worse: error rate as `times` + `plus`, latency `slow` times.

    `leak_requests`: the error rate grows by `leak` over so many requests. `wrong`: so much less
    accuracy; `disagree`: the share of answers that differ (both only matter in shadow).
    """

    times: float = 1.0
    plus: float = 0.0
    slow: float = 1.0
    wrong: float = 0.0
    disagree: float = 0.02
    leak: float = 0.0
    leak_requests: int = 20_000

    def error(self, rate: Array, t: int) -> Array:
        """Return its error rate where the champion's is `rate`."""
        leaked = self.leak * min(1.0, t / self.leak_requests)
        out: Array = np.minimum(1.0, rate * self.times + self.plus + leaked)
        return out


@dataclass
class World:
    """A kind of traffic; subclasses of state are plain arrays in `state`, cut with the rows."""

    name: str
    challenger: Challenger
    rows: int
    rng: np.random.Generator
    shared: Callable[[World, int], tuple[Array, Array]]
    errors: float = 0.01
    sticky: bool = False
    stalls: float = 0.0  # sd of each arm's own slow swing of the log latency
    state: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)

    def assign(self, weight: Array) -> tuple[Mask, Array]:
        """Draw the arm of the next request: challenger, and the chance it was drawn with."""
        if not self.sticky:
            return self.rng.random(self.rows) < weight, weight
        return _assign_users(self, weight)

    def draw(self, t: int, challenger: Mask) -> tuple[Mask, Array]:
        """Draw whether the request fails, and the log of its milliseconds."""
        rate, swing = self.shared(self, t)
        rate = np.where(challenger, self.challenger.error(rate, t), rate)
        failed = self.rng.random(self.rows) < rate
        log_ms = np.log(MEDIAN_MS) + swing + SPREAD * self.rng.standard_normal(self.rows)
        if self.stalls:
            log_ms += _own_swing(self, challenger)
        return failed, log_ms + challenger * np.log(self.challenger.slow)

    def take(self, keep: Mask) -> None:
        """Go on with these rows only."""
        self.rows = int(keep.sum())
        self.state = {name: one[keep] for name, one in self.state.items()}


def _flat(world: World, _: int) -> tuple[Array, Array]:
    return np.full(world.rows, world.errors), np.zeros(world.rows)


def _bursts(world: World, _: int) -> tuple[Array, Array]:
    """Calm at 0.5 % errors; one request in 8,000 starts a burst of 200 at 20 %, 3 times slower."""
    on = world.state.setdefault("burst", np.zeros(world.rows, bool))
    u = world.rng.random(world.rows)
    on = world.state["burst"] = np.where(on, u > 1 / 200, u < 1 / 8000)
    return np.where(on, 0.2, 0.005), np.where(on, np.log(3), 0.0)


def _wander(world: World, _: int) -> tuple[Array, Array]:
    """One machine under both arms: its latency wanders, correlated over some 500 requests."""
    x = world.state.setdefault("wander", np.zeros(world.rows))
    rho = 0.998
    step = np.sqrt(1 - rho * rho) * world.rng.standard_normal(world.rows)
    x = world.state["wander"] = rho * x + step
    return np.full(world.rows, world.errors), 0.4 * x


def _cycle(world: World, t: int) -> tuple[Array, Array]:
    """Turn a day of 10,000 requests: 0.2 to 1.8 % errors, latency 0.6 to 1.6 times."""
    start = world.state.setdefault("hour", world.rng.random(world.rows))
    wave = np.sin(2 * np.pi * (start + t / CYCLE_REQUESTS))
    return 0.01 + 0.008 * wave, 0.5 * wave


def _outage(world: World, t: int) -> tuple[Array, Array]:
    """Both arms fail together, 60 % of requests, for 3,000 requests from a random moment on."""
    start = world.state.setdefault("outage", world.rng.integers(0, 12_000, world.rows))
    on = (t >= start) & (t < start + 3000)
    return np.where(on, 0.6, world.errors), np.where(on, np.log(2), 0.0)


def _users(world: World, _: int) -> tuple[Array, Array]:
    """2 % of the users fail 30 % of their requests, the others 0.4 %."""
    rate = np.where(world.state["user_bad"], 0.3, 0.004)
    return rate, np.zeros(world.rows)


def _own_swing(world: World, challenger: Mask) -> Array:
    """Let each arm's latency swing on its own: correlated over some 50 of its own requests."""
    own = world.state.setdefault("own", np.zeros((world.rows, 2)))
    arm, rows, rho = challenger.astype(int), np.arange(world.rows), 0.98
    own[rows, arm] = rho * own[rows, arm] + np.sqrt(1 - rho**2) * world.rng.standard_normal(
        world.rows
    )
    return world.stalls * own[rows, arm]


def _assign_users(world: World, weight: Array) -> tuple[Mask, Array]:
    """Draw a user (the heaviest sends 1 request in 11), send it where its hash says.

    The chance follows fettle.rollout.promotion.arm_assignment, as arrays.
    """
    rows = np.arange(world.rows)
    if "low" not in world.state:
        shape = (world.rows, USERS)
        world.state["hash"] = world.rng.random(shape, dtype=np.float32)
        world.state["bad"] = world.rng.random(shape, dtype=np.float32) < 0.02
        world.state["low"], world.state["high"] = np.zeros(shape), np.ones(shape)
    cumulative = _zipf()
    user = np.searchsorted(cumulative, world.rng.random(world.rows))
    world.state["user"] = user
    low, high = world.state["low"][rows, user], world.state["high"][rows, user]
    challenger = world.state["hash"][rows, user] < weight
    chance = np.clip((weight - low) / (high - low), 0, 1)
    world.state["high"][rows, user] = np.where(challenger, np.minimum(high, weight), high)
    world.state["low"][rows, user] = np.where(challenger, low, np.maximum(low, weight))
    world.state["user_bad"] = world.state["bad"][rows, user]
    return challenger, chance


def _zipf() -> Array:
    share = 1 / (1 + np.arange(USERS))
    out: Array = np.cumsum(share / share.sum())
    out[-1] = 1.0
    return out


KINDS: dict[str, World] = {
    one.name: one
    for one in (
        World("plain", Challenger(), 0, np.random.default_rng(0), _flat),
        World("bursts", Challenger(), 0, np.random.default_rng(0), _bursts),
        World("shared wandering latency", Challenger(), 0, np.random.default_rng(0), _wander),
        World(
            "each arm's own stalls", Challenger(), 0, np.random.default_rng(0), _flat, stalls=0.3
        ),
        World("daily cycle", Challenger(), 0, np.random.default_rng(0), _cycle),
        World("both arms failing", Challenger(), 0, np.random.default_rng(0), _outage),
        World("sticky heavy users", Challenger(), 0, np.random.default_rng(0), _users, sticky=True),
    )
}


def make(kind: str, challenger: Challenger, rows: int, seed: int) -> World:
    """Return a fresh world of this kind."""
    rng = np.random.default_rng(seed)
    return replace(KINDS[kind], challenger=challenger, rows=rows, rng=rng, state={})
