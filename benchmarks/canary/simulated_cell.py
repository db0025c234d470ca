"""A simulated cell: one world, one challenger, so many rollouts of the default plan.

Its rows are shares with an exact bound and distributions with a median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from zlib import crc32

import numpy as np
from scipy.stats import beta

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.canary import ours, worlds
from benchmarks.canary.ours import HELD, PROMOTED, ROLLED_BACK, Ints, Length, Outcomes
from benchmarks.canary.worlds import Array as Floats
from benchmarks.canary.worlds import Challenger
from fettle.params_schema import Promote
from fettle.rollout.promotion.rollout_plan import RolloutPlan

HORIZON = 30_000  # user requests; the goal's power is asked at 25,000
POWER_REQUESTS = 25_000
WRONG_MAX, UPPER_MAX = 0.01, 0.013
CHUNK = 1000  # rollouts at once: their arrays fit the cache
CHUNK_STICKY = 250  # their users do not
EQUAL = Challenger()
AT_MARGIN = {
    "errors +1 point": Challenger(plus=0.01),
    "p95 x1.2": Challenger(slow=1.2),
}
LENGTH = Length(HORIZON)


def default_plan() -> RolloutPlan:
    """Return the plan of params.yaml as it ships."""
    return RolloutPlan.of(Promote())


def chunk(kind: str) -> int:
    """Return how many rollouts of a world are simulated at once."""
    return CHUNK_STICKY if worlds.KINDS[kind].sticky else CHUNK


def seeds(kind: str, challenger: Challenger, rollouts: int) -> list[int]:
    """List the seed of each chunk of so many rollouts."""
    starts = range(0, rollouts, chunk(kind))
    return [crc32(f"{kind} {challenger} {start}".encode()) for start in starts]


def simulate(
    kind: str,
    challenger: Challenger,
    plan: RolloutPlan,
    rollouts: int,
    *,
    length: Length = LENGTH,
) -> Outcomes:
    """Roll out so many times, in chunks, each with its own seed."""
    size = chunk(kind)
    found = []
    for at, seed in zip(range(0, rollouts, size), seeds(kind, challenger, rollouts), strict=True):
        world = worlds.make(kind, challenger, min(size, rollouts - at), seed)
        found.append(ours.roll(world, plan, length))
    names = [one.name for one in fields(Outcomes)]
    return Outcomes(*(np.concatenate([getattr(one, name) for one in found]) for name in names))


def upper(hits: int, n: int) -> float:
    """Return the exact 95 % upper bound of a share (Clopper and Pearson 1934, one-sided)."""
    return 1.0 if hits == n else float(beta.ppf(0.95, hits + 1, n - hits))


def wrong(what: str, ends: Ints, end: int, drawn: Sequence[int], *, note: str = "") -> BenchmarkRow:
    """Make the row of a share of wrong ends, with its exact bound; the note has the power."""
    hits, n = int((ends == end).sum()), len(ends)
    high = upper(hits, n)
    return benchmark_row.measured(
        what,
        hits / n,
        low=0.0,
        high=high,
        unit="share",
        n=n,
        seeds=drawn,
        goal=f"<= {WRONG_MAX:g}, 95 % bound <= {UPPER_MAX:g}",
        holds=hits / n <= WRONG_MAX and high <= UPPER_MAX,
        note=note,
    )


def ends_of(out: Outcomes, whose: str) -> str:
    """Say how all of them ended: held is not decided rightly."""
    in_time = float(((out.end == PROMOTED) & (out.requests <= POWER_REQUESTS)).mean())
    return (
        f"of {whose}: {in_time:.1%} promoted within 25,000 requests, {out.share(PROMOTED):.1%} "
        f"within {HORIZON:,}, {out.share(ROLLED_BACK):.1%} rolled back, {out.share(HELD):.1%} held"
    )


def median_to_p95(what: str, found: Ints | Floats, unit: str, drawn: Sequence[int]) -> BenchmarkRow:
    """Make the row of a distribution: its median, its 95th percentile as `high`."""
    half, p95 = (float(quantile) for quantile in np.quantile(found, [0.5, 0.95]))
    return benchmark_row.measured(
        f"{what}, median (high: p95)",
        half,
        low=float(found.min()),
        high=p95,
        unit=unit,
        n=found.size,
        seeds=drawn,
    )
