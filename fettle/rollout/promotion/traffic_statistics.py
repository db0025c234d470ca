"""Traffic statistics of the champion's recent requests: what a plan must expect.

The latencies go through the controller's own update (latency_gate.py), so the plan knows of the
same clusters of slow requests that will hold the latency gate. What too few requests cannot tell is
assumed, and said so: `Learnt.assumed` names the fields of Traffic that the log did not give.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fettle.rollout.promotion import latency_gate
from fettle.rollout.promotion.e_process import Bools, Floats
from fettle.rollout.promotion.sample_size import Z_95, Traffic

# Standard error of the clusters' variance: sqrt(2 / 16), a third. With the warm-up 2,148 requests.
BLOCKS_LEAST = 16
REQUESTS_LEAST = latency_gate.WARM_UP + BLOCKS_LEAST * int(latency_gate.BLOCKS.max())
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
        return TrafficStatistics(traffic, n, (*rate, "errors", "latency_spread", "design_effect"))
    low, high = np.quantile(np.log(np.maximum(latency_ms[~failed], 0.5)), [0.5, 0.95])
    found = replace(
        traffic,
        errors=(float(failed.sum()) + 1) / (n + 2),  # Laplace: no error seen is not none at all
        latency_spread=max(SPREAD_LEAST, float(high - low) / Z_95),
        design_effect=clusters(failed=failed, latency_ms=latency_ms),
    )
    return TrafficStatistics(found, n, rate)


def clusters(*, failed: Bools, latency_ms: Floats) -> float:
    """Return the design effect of the champion's slow requests, 1 or more, from the worst scale."""
    state = latency_gate.start()
    champion, nobody = np.array([False]), np.array([0.0])  # no draw: only tau and blocks move
    for lost, ms in zip(failed, latency_ms, strict=True):
        latency_gate.update(
            state,
            champion,
            np.log([max(float(ms), 1e-3)]),
            propensity=nobody,
            log_ratio=0.0,
            counts=np.array([not lost]),
            log_fail=np.inf,
            log_pass=np.inf,
        )
    enough = state.blocks[0] >= BLOCKS_LEAST
    effects = state.spread[0][enough] / state.blocks[0][enough]
    return max(1.0, float(effects.max(initial=1.0)))
