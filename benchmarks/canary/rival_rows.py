"""Other tools' rules on the same worlds, with the minutes that each takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.canary import ours, rivals, worlds
from benchmarks.canary.ours import PROMOTED, ROLLED_BACK, Ints, Outcomes
from benchmarks.canary.simulated_cell import (
    AT_MARGIN,
    EQUAL,
    default_plan,
    median_to_p95,
    seeds,
    simulate,
    upper,
)
from benchmarks.canary.worlds import Array as Floats
from benchmarks.canary.worlds import Challenger


def against(rollouts: int, per_minute: int) -> Iterator[BenchmarkRow]:
    """Judge the same worlds by other tools' rules, at a stated traffic."""
    kinds = list(worlds.KINDS) if per_minute <= 1000 else ["plain"]
    cases = {"equal": EQUAL, **AT_MARGIN, "3x errors": Challenger(times=3.0)}
    for kind in [kind for kind in kinds if not worlds.KINDS[kind].sticky]:
        for case, challenger in cases.items():
            prefix = f"{per_minute}/min, {kind}, {case}"
            end = ROLLED_BACK if case == "equal" else PROMOTED
            out = simulate(kind, challenger, default_plan(), rollouts)
            drawn, minutes = seeds(kind, challenger, rollouts), _minutes(out, per_minute)
            yield from _compared(f"{prefix}: fettle", end, out.end, minutes, drawn)
            for rule, run in rivals.RULES.items():
                for careful in (False, True) if rule != "Kayenta" else (False,):
                    seed = crc32(prefix.encode())
                    world = worlds.make(kind, challenger, rollouts, seed)
                    ends = run(world, per_minute, careful=careful)
                    name = f"{rule}{', careful bounds' if careful else ''}"
                    yield from _compared(f"{prefix}: {name}", end, ends.end, ends.minutes, [seed])


def _compared(
    what: str,
    end: int,
    ends: Ints,
    minutes: Floats,
    drawn: Sequence[int],
) -> Iterator[BenchmarkRow]:
    verb = "rolled back" if end == ROLLED_BACK else "promoted"
    hits, n = int((ends == end).sum()), len(ends)
    yield benchmark_row.measured(
        f"{what} {verb}",
        hits / n,
        low=0.0,
        high=upper(hits, n),
        unit="share",
        n=n,
        seeds=drawn,
    )
    right = minutes[(ends != end) & (ends != ours.HELD)]
    if right.size:
        yield median_to_p95(f"{what}, minutes to the right decision", right, "min", drawn)


def _minutes(out: Outcomes, per_minute: int) -> Floats:
    """Return the minutes until the challenger had all traffic or none, least waits included."""
    requests = np.where(out.end == PROMOTED, out.whole, out.requests)
    least = (
        default_plan().step_min_s / 60 * np.where(out.end == PROMOTED, len(default_plan().steps), 0)
    )
    minutes: Floats = np.maximum(requests / per_minute, least)
    return minutes
