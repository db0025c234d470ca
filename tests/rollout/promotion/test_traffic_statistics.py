from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fettle.params_schema import Promote
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.sample_size import Traffic, forecast
from fettle.rollout.promotion.traffic_statistics import REQUESTS_LEAST, cluster_requests, estimate

ASSUMED = Traffic(requests_per_s=10)
N = 6_000


def test_independent_requests_show_no_clusters_and_stalls_show_their_length() -> None:
    calm = np.random.default_rng(1).lognormal(2.0, 0.3, N)
    none = np.zeros(N, dtype=bool)
    assert cluster_requests(failed=none, latency_ms=calm) == 0
    long = np.repeat(np.random.default_rng(1).random(N // 600) < 0.3, 600)
    stalled = calm * np.where(long, 3.0, 1.0)
    assert 150 < cluster_requests(failed=none, latency_ms=stalled) < 900


def test_the_plan_takes_errors_spread_and_rate_from_the_champion() -> None:
    draw = np.random.default_rng(2)
    failed = draw.random(N) < 0.02
    found = estimate(ASSUMED, failed=failed, latency_ms=draw.lognormal(2.0, 0.3, N), per_s=40.0)
    assert found.assumed == ()
    assert found.traffic.requests_per_s == 40.0
    assert found.traffic.errors == pytest.approx(failed.mean(), abs=3e-4)
    assert found.traffic.latency_spread == pytest.approx(0.3, abs=0.02)


def test_where_clusters_are_longer_than_a_twentieth_of_the_budget_the_plan_refuses() -> None:
    plan = RolloutPlan.of(Promote())
    found = forecast(plan, replace(ASSUMED, cluster_requests=2600.0))
    assert found.refusals == (
        "clusters: bad or slow requests stay alike over 2600 requests, more than a twentieth of "
        "the step's budget (2500): raise promote.step_budget_requests",
    )
    assert forecast(plan, replace(ASSUMED, cluster_requests=2400.0)).refusals == ()


def test_a_short_log_tells_nothing_and_the_assumptions_are_named() -> None:
    n = REQUESTS_LEAST - 1
    found = estimate(ASSUMED, failed=np.zeros(n, dtype=bool), latency_ms=np.ones(n), per_s=None)
    assert found.traffic == ASSUMED
    assert found.assumed == ("requests_per_s", "errors", "latency_spread", "cluster_requests")


def test_a_log_without_an_error_is_not_taken_for_a_champion_without_errors() -> None:
    found = estimate(ASSUMED, failed=np.zeros(N, dtype=bool), latency_ms=np.ones(N), per_s=1.0)
    assert found.traffic.errors == pytest.approx(1 / (N + 2))
