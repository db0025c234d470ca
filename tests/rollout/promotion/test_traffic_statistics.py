from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fettle.params_schema import Promote
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.sample_size import Traffic, forecast
from fettle.rollout.promotion.traffic_statistics import REQUESTS_LEAST, clusters, estimate

ASSUMED = Traffic(requests_per_s=10)
N = 6_000


def stalls(seed: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Latencies of which every twentieth run of 50 requests is three times as slow."""
    draw = np.random.default_rng(seed)
    slow = np.repeat(draw.random(N // 50) < 0.05, 50)
    return draw.lognormal(2.0, 0.3, N) * np.where(slow, 3.0, 1.0)


def test_independent_requests_show_no_clusters_and_stalls_do() -> None:
    calm = np.random.default_rng(1).lognormal(2.0, 0.3, N)
    none = np.zeros(N, dtype=bool)
    assert clusters(failed=none, latency_ms=calm) < 1.6
    assert clusters(failed=none, latency_ms=stalls(1)) > 8


def test_the_plan_takes_errors_spread_and_rate_from_the_champion() -> None:
    draw = np.random.default_rng(2)
    failed = draw.random(N) < 0.02
    found = estimate(ASSUMED, failed=failed, latency_ms=draw.lognormal(2.0, 0.3, N), per_s=40.0)
    assert found.assumed == ()
    assert found.traffic.requests_per_s == 40.0
    assert found.traffic.errors == pytest.approx(failed.mean(), abs=3e-4)
    assert found.traffic.latency_spread == pytest.approx(0.3, abs=0.02)


def test_where_latencies_cluster_the_plan_refuses_with_the_reason() -> None:
    none = np.zeros(N, dtype=bool)
    found = estimate(ASSUMED, failed=none, latency_ms=stalls(3), per_s=40.0)
    effect = found.traffic.design_effect
    plan = replace(RolloutPlan.of(Promote()), step_budget_requests=10_000)
    calm = forecast(plan, replace(found.traffic, design_effect=1.0))
    clustered = forecast(plan, found.traffic)
    needs = [
        next(one.most or 0 for one in doc.needs if (one.step, one.gate) == ("25 %", "latency"))
        for doc in (calm, clustered)
    ]
    assert needs[1] > 2 * needs[0]
    assert calm.refusals == ()
    assert clustered.refusals[0] == (
        f"25 %: latency needs {needs[1]} requests for 95 of 100 equal challengers to pass, the "
        "budget is 10000 (promote.step_budget_requests): slow requests come "
        f"in clusters (design effect {effect:.1f})"
    )


def test_a_short_log_tells_nothing_and_the_assumptions_are_named() -> None:
    n = REQUESTS_LEAST - 1
    found = estimate(ASSUMED, failed=np.zeros(n, dtype=bool), latency_ms=np.ones(n), per_s=None)
    assert found.traffic == ASSUMED
    assert found.assumed == ("requests_per_s", "errors", "latency_spread", "design_effect")


def test_a_log_without_an_error_is_not_taken_for_a_champion_without_errors() -> None:
    found = estimate(ASSUMED, failed=np.zeros(N, dtype=bool), latency_ms=np.ones(N), per_s=1.0)
    assert found.traffic.errors == pytest.approx(1 / (N + 2))
