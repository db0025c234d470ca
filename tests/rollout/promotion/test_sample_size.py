from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.canary import ours, worlds
from benchmarks.canary.worlds import Challenger
from fettle.params_schema import Promote, PromoteStep
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.sample_size import Forecast, Traffic, forecast

PLAN = RolloutPlan.of(Promote())
TRAFFIC = Traffic(requests_per_s=100)


def need(found: Forecast, step: str, gate: str) -> int:
    most = next(one.most for one in found.needs if (one.step, one.gate) == (step, gate))
    assert most is not None
    return most


def test_the_default_plan_needs_less_than_25_000_requests_at_one_percent_errors() -> None:
    found = forecast(PLAN, TRAFFIC)
    assert len(found.needs) == 8
    assert found.requests is not None
    assert 15_000 < found.requests <= 25_000
    assert found.refusals == ()
    assert found.advice == ()
    assert found.at_stake_percent == 0.5
    assert found.until_dead["1 %"] <= 10


def test_little_traffic_is_said_with_its_time_and_offers_but_the_bar_stays() -> None:
    found = forecast(PLAN, replace(TRAFFIC, requests_per_s=0.05))
    assert found.requests == forecast(PLAN, TRAFFIC).requests
    assert found.eta_s == pytest.approx(20 * found.requests)
    assert found.advice == (
        "replay captured or held-out requests in shadow: pairs need far fewer than two arms",
        "promote.errors_margin 0.015 with promote.step_budget_requests 14437 needs 3910 requests "
        "at 50 %",
    )


def test_no_traffic_has_no_time() -> None:
    assert forecast(PLAN, replace(TRAFFIC, requests_per_s=0)).eta_s is None


def test_a_budget_too_small_is_refused_with_the_need() -> None:
    found = forecast(replace(PLAN, step_budget_requests=6000), TRAFFIC)
    assert found.refusals == (
        f"50 %: errors needs {need(found, '50 %', 'errors')} requests for 95 of 100 equal "
        "challengers to pass, the budget is 6000 (promote.step_budget_requests)",
        f"50 %: latency needs {need(found, '50 %', 'latency')} requests for 95 of 100 equal "
        "challengers to pass, the budget is 6000 (promote.step_budget_requests)",
    )


def test_a_gate_on_labels_that_never_come_is_refused() -> None:
    steps = [PromoteStep(weight_percent=50, gates=["errors", "latency", "accuracy"])]
    found = forecast(RolloutPlan.of(Promote(steps=steps)), TRAFFIC)
    assert found.refusals == ("50 %: accuracy can never pass with this traffic",)
    assert found.requests is None
    assert found.eta_s is None


def test_the_need_of_a_step_is_what_rollouts_really_take() -> None:
    """One step, 100 rollouts each: once errors are the slower gate, once latency is."""
    for changes in ({"latency_p95_ratio": 3.0, "errors_margin": 0.03}, {"errors_margin": 0.3}):
        steps = [PromoteStep(weight_percent=50)]
        fields = {"latency_p95_ratio": 1.7, **changes}
        plan = RolloutPlan.of(Promote.model_validate({"steps": steps, **fields}))
        found = forecast(plan, TRAFFIC)
        most = max(need(found, "50 %", gate) for gate in ("errors", "latency"))
        world = worlds.make("plain", Challenger(), 100, 5)
        out = ours.roll(world, plan, ours.Length(2 * most, history=False))
        taken = np.quantile(np.where(out.whole > 0, out.whole, np.inf), 0.95)
        assert 0.4 * most <= taken <= 1.25 * most  # 100 rollouts know their p95 to some 15 %
