"""Traffic statistics of the champion's recent requests: what a plan must expect.

How long bad and slow requests stay alike says whether a step is long enough (span_test.py). What
too few requests cannot tell is assumed, and said so: `Learnt.assumed` names the fields of Traffic
that the log did not give.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fettle.rollout.promotion.e_process import Bools, Floats
from fettle.rollout.promotion.sample_size import Z_95, Traffic
from fettle.rollout.promotion.tail_threshold import SLOW

BLOCK, BLOCKS_LEAST = 64, 32
REQUESTS_LEAST = BLOCK * BLOCKS_LEAST
CHANCE = 3.0  # standard errors of an autocorrelation, 1/sqrt(blocks)
SPREAD_LEAST = 0.05  # nginx writes whole milliseconds: a narrower log spread is its rounding


@dataclass(frozen=True, slots=True)
class TrafficStatistics:
    """What is expected, from how many of the champion's requests, and what is but assumed.

    `skipped` counts the lines of the log that could not be read.
    """

    traffic: Traffic
    requests: int
    assumed: tuple[str, ...]
    skipped: int = 0


def estimate(
    assumed: Traffic, *, failed: Bools, latency_ms: Floats, per_s: float | None
) -> TrafficStatistics:
    """Put what the champion's requests tell, [n] in time order, in the place of assumptions.

    per_s: requests a second over all arms, None where the log is too short to tell.
    """
    n, traffic = len(failed), assumed
    rate: tuple[str, ...] = ("requests_per_s",)
    if per_s is not None:
        traffic, rate = replace(assumed, requests_per_s=per_s), ()
    if n < REQUESTS_LEAST:
        return TrafficStatistics(
            traffic, n, (*rate, "errors", "latency_spread", "cluster_requests")
        )
    low, high = np.quantile(np.log(np.maximum(latency_ms[~failed], 0.5)), [0.5, 0.95])
    found = replace(
        traffic,
        errors=(float(failed.sum()) + 1) / (n + 2),  # Laplace: no error seen is not none at all
        latency_spread=max(SPREAD_LEAST, float(high - low) / Z_95),
        cluster_requests=cluster_requests(failed=failed, latency_ms=latency_ms),
    )
    return TrafficStatistics(found, n, rate)


def cluster_requests(*, failed: Bools, latency_ms: Floats) -> float:
    """Return for how many requests failures, or slow answers, stay alike; 0 where they do not.

    The lag at which the autocorrelation of the shares of blocks has fallen to a third of its first,
    where that is more than chance.
    """
    tau = float(np.quantile(latency_ms[~failed], 1 - SLOW)) if (~failed).any() else 0.0
    return max(_alike(failed), _alike(~failed & (latency_ms > tau)))


def _alike(bad: Bools) -> float:
    blocks = len(bad) // BLOCK
    shares = bad[: blocks * BLOCK].reshape(blocks, BLOCK).mean(axis=1)
    off = shares - shares.mean()
    power = float((off * off).sum())
    if blocks < BLOCKS_LEAST or power == 0:
        return 0.0
    most = blocks // 3
    alike = [float((off[lag:] * off[:-lag]).sum()) / power for lag in range(1, most)]
    if alike[0] <= CHANCE / np.sqrt(blocks):
        return 0.0
    fallen = (lag for lag, one in enumerate(alike, start=1) if one < alike[0] / 3)
    return float(BLOCK * next(fallen, most))
