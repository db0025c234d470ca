"""Make plans and traffic for the tests of promotion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fettle.params_schema import Promote, PromoteStep
from fettle.rollout.promotion.decision_engine import Begin, Engine, Observed, Offline
from fettle.rollout.promotion.gate_verdict import GateResult, Verdict
from fettle.rollout.promotion.request_records import Arm, Attempt, ShadowPair
from fettle.rollout.promotion.rollout_plan import RolloutPlan

PASSED = GateResult(name="accuracy", verdict=Verdict.PASS, reason="as good")


def a_plan(**changes: object) -> RolloutPlan:
    """Two steps with wide margins: a rollout of some thousand requests."""
    fields = {
        "shadow_requests": 50,
        "shadow_gates": ["disagreement"],
        "steps": [
            PromoteStep(weight_percent=10, margin_multiplier=10, gates=["errors"]),
            PromoteStep(weight_percent=50),
        ],
        "errors_margin": 0.05,
        "latency_p95_ratio": 1.8,
        "disagreement_max": 0.2,
        "step_min_s": 0.0,
        "bake_s": 0.0,
        "bake_requests": 100,
        **changes,
    }
    return RolloutPlan.of(Promote.model_validate(fields))


def an_engine(plan: RolloutPlan | None = None, **changes: object) -> Engine:
    """An engine whose offline gate has passed."""
    fields = {"rollout_id": "r1", "challenger": "b" * 64, "champion": "a" * 64, **changes}
    engine = Engine(Begin(plan=plan or a_plan(), **fields))  # type: ignore[arg-type]  # a test's
    engine.decide(Offline(now_s=0.0, results=(PASSED,)))
    return engine


def agreeing_pairs(n: int) -> Observed:
    pairs = (
        ShadowPair(request_id=f"p{i}", time_s=1.0, champion="1", challenger="1", label="1")
        for i in range(n)
    )
    return Observed(now_s=1.0, records=tuple(pairs))


def attempts(
    seed: int, weight: float, n: int, *, errors: tuple[float, float], slow: float = 1.0
) -> Iterator[Attempt]:
    """Draw requests; errors: the rates of the arms; slow: times the challenger's latency."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        challenger = bool(rng.random() < weight)
        arm = Arm.CHALLENGER if challenger else Arm.CHAMPION
        failed = rng.random() < errors[challenger]
        latency_ms = 20 * float(np.exp(0.3 * rng.standard_normal())) * (slow if challenger else 1)
        yield Attempt(
            request_id=f"s{seed}-{i}",
            time_s=float(i),
            arm=arm,
            assigned=arm,
            weight=weight,
            status=500 if failed else 200,
            latency_ms=latency_ms,
        )
