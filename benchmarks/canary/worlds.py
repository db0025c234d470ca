"""Draw what the router would see: errors and latencies of both arms, request by request.

All arrays are [rows], a row is one rollout. A world knows what the challenger does worse; what the
two arms share (bursts, the hour, outages, the users) it draws once for both, what each does by
itself (stalls, bursts of its own: own_swings.py) once for each, by one law.
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
CALM = 0.005  # errors between bursts; within them 20 %


@dataclass(frozen=True)
class Challenger:
    """What the challenger does worse: error rate as `times` + `plus`, latency `slow` times.

    `leak_requests`: the error rate grows by `leak` over so many requests. `wrong`: so much less
    accuracy; `disagree`: the share of answers that differ (both only matter in shadow). `bursts`:
    its own bursts make up so many points of errors more. `hangs`: so often its caller leaves
    before an answer; `refuses`: so often it answers 4xx.
    """

    times: float = 1.0
    plus: float = 0.0
    slow: float = 1.0
    wrong: float = 0.0
    disagree: float = 0.02
    leak: float = 0.0
    leak_requests: int = 20_000
    bursts: float = 0.0
    hangs: float = 0.0
    refuses: float = 0.0

    def error(self, rate: Array, t: int) -> Array:
        """Return its error rate where the champion's is `rate`."""
        leaked = self.leak * min(1.0, max(t, 0) / self.leak_requests)
        out: Array = np.minimum(1.0, rate * self.times + self.plus + leaked)
        return out


@dataclass
class Seen:
    """One request a row, as the router saw it."""

    failed: Mask
    refused: Mask
    gone: Mask
    log_ms: Array


@dataclass
class World:
    """A kind of traffic; subclasses of state are plain arrays in `state`, cut with the rows."""

    name: str
    shared: Callable[[World, int], tuple[Array, Array]]
    own: Callable[[World, Mask], tuple[Array, Array]] | None = None
    challenger: Challenger = field(default_factory=Challenger)
    rows: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    errors: float = 0.01
    median_ms: float = MEDIAN_MS
    sticky: bool = False
    patience_s: tuple[float, float] | None = None  # callers leave after so long, drawn between
    utilisation: float | None = None  # each arm a queue (M/M/1), with all the traffic
    state: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)

    def assign(self, weight: Array) -> tuple[Mask, Array]:
        """Draw the arm of the next request: challenger, and the chance it was drawn with."""
        if not self.sticky:
            return self.rng.random(self.rows) < weight, weight
        return _assign_users(self, weight)

    def draw(self, t: int, challenger: Mask) -> Seen:
        """Draw what becomes of the request; t < 0 is the time before the rollout."""
        rate, swing = self.shared(self, t)
        if self.own is not None:
            more, slower = self.own(self, challenger)
            rate, swing = rate + more, swing + slower
        rate = np.where(challenger, self.challenger.error(rate, t), rate)
        failed = self.rng.random(self.rows) < rate
        log_ms = self._latency(challenger) + swing
        log_ms += challenger * np.log(self.challenger.slow)
        none = np.zeros(self.rows, bool)
        seen = Seen(failed, none, none, log_ms)
        if self.patience_s is not None:
            self._leave(seen, challenger, self.patience_s)
        if self.challenger.refuses:
            seen.refused = challenger & (self.rng.random(self.rows) < self.challenger.refuses)
        return seen

    def _latency(self, challenger: Mask) -> Array:
        """Return the log milliseconds of a request on a quiet machine, or after its queue."""
        if self.utilisation is None:
            return np.log(self.median_ms) + SPREAD * self.rng.standard_normal(self.rows)
        work = self.state.setdefault("work", np.zeros((self.rows, 2)))
        rows, arm = np.arange(self.rows), challenger.astype(int)
        gap_ms = self.rng.exponential(self.median_ms / self.utilisation, self.rows)
        work = np.maximum(0.0, work - gap_ms[:, None])
        work[rows, arm] += self.rng.exponential(self.median_ms, self.rows)
        self.state["work"] = work
        out: Array = np.log(work[rows, arm])
        return out

    def _leave(self, seen: Seen, challenger: Mask, patience_s: tuple[float, float]) -> None:
        """Let callers leave, who wait so long: what hangs is seen as a 499 at that time."""
        waited = np.log(1000 * self.rng.uniform(*patience_s, self.rows))
        hangs = challenger & (self.rng.random(self.rows) < self.challenger.hangs)
        seen.gone = hangs | (~seen.failed & (seen.log_ms > waited))
        seen.failed = seen.failed & ~hangs
        seen.log_ms = np.where(seen.gone, waited, seen.log_ms)

    def take(self, keep: Mask) -> None:
        """Go on with these rows only."""
        self.rows = int(keep.sum())
        self.state = {name: one[keep] for name, one in self.state.items()}


def flat(world: World, _: int) -> tuple[Array, Array]:
    """Nothing changes."""
    return np.full(world.rows, world.errors), np.zeros(world.rows)


def _bursts(world: World, _: int) -> tuple[Array, Array]:
    """Calm at 0.5 % errors; one request in 8,000 starts a burst of 200 at 20 %, 3 times slower."""
    on = world.state.setdefault("burst", np.zeros(world.rows, bool))
    u = world.rng.random(world.rows)
    on = world.state["burst"] = np.where(on, u > 1 / 200, u < 1 / 8000)
    return np.where(on, 0.2, CALM), np.where(on, np.log(3), 0.0)


def _wander(world: World, _: int) -> tuple[Array, Array]:
    """One machine under both arms: its latency wanders, correlated over some 500 requests."""
    x = world.state.setdefault("wander", world.rng.standard_normal(world.rows))
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


def _own_kinds() -> list[World]:
    from benchmarks.canary import own_swings as own

    stalls = [(50, 0.3), (200, 0.5), (500, 0.3), (2000, 0.3)]
    rare = [(150, 4000), (1000, 25_000), (2000, 50_000)]
    return [
        *(
            World(f"own stalls over {length} requests", flat, own.wandering(length, spread))
            for length, spread in stalls
        ),
        *(
            World(f"a stall of {length} in {every}", flat, own.rare_stalls(length, every))
            for length, every in rare
        ),
        *(
            World(f"own error bursts of {length}", flat, own.error_bursts(length), errors=CALM)
            for length in (20, 50, 200, 1000)
        ),
        World("restarts of 20 requests", flat, own.restarts(20, 0.005), errors=CALM),
    ]


KINDS: dict[str, World] = {
    one.name: one
    for one in (
        World("plain", flat),
        World("bursts", _bursts),
        World("shared wandering latency", _wander),
        World("daily cycle", _cycle),
        *_own_kinds(),
        *(World(f"queues, {100 * u:g} % used", flat, utilisation=u) for u in (0.3, 0.5, 0.7)),
        World("both arms failing", _outage),
        *(World(f"{100 * e:g} % errors", flat, errors=e) for e in (0.0, 0.001, 0.05, 0.1)),
        *(World(f"median of {ms:g} ms", flat, median_ms=ms) for ms in (0.3, 1.0, 50.0)),
        World("callers who give up", flat, patience_s=(1.0, 3.0)),
        World("sticky heavy users", _users, sticky=True),
    )
}


def make(kind: str, challenger: Challenger, rows: int, seed: int) -> World:
    """Return a fresh world of this kind."""
    rng = np.random.default_rng(seed)
    return replace(KINDS[kind], challenger=challenger, rows=rows, rng=rng, state={})
