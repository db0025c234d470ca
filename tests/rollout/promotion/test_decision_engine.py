from __future__ import annotations

import math
from dataclasses import replace

import pytest
from simulated_traffic import PASSED, a_plan, agreeing_pairs, an_engine, attempts

from fettle.rollout.promotion.decision_engine import Decision, Engine, Observed, Offline
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.request_records import Arm, InputObservation, Label
from fettle.rollout.promotion.rollout_state import Action, ActionKind, Phase


def drive(engine: Engine, *, errors: tuple[float, float], slow: float = 1.0) -> Decision:
    """Feed traffic at whatever weight the engine asks for, until it stands still."""
    decision = engine.decide(agreeing_pairs(400))
    for round_ in range(400):
        if engine.state.over or engine.state.phase in (Phase.PROMOTED, Phase.PAUSED):
            break
        weight = engine.state.weight_percent / 100
        seen = tuple(attempts(round_, weight, 100, errors=errors, slow=slow))
        decision = engine.decide(Observed(now_s=2.0 + round_, records=seen))
    return decision


def test_an_equal_challenger_is_promoted_through_every_weight() -> None:
    engine = an_engine()
    decision = drive(engine, errors=(0.01, 0.01))
    assert engine.state.phase is Phase.PROMOTED
    assert decision.actions[0].kind is ActionKind.MOVE_ALIASES
    assert decision.reason == "every gate passed, and the bake"


def test_a_failing_challenger_is_rolled_back_with_both_counts_and_the_evidence() -> None:
    engine = an_engine()
    decision = drive(engine, errors=(0.01, 0.5))
    assert engine.state.phase is Phase.ROLLED_BACK
    assert [action.kind for action in decision.actions] == [
        ActionKind.SET_WEIGHT,
        ActionKind.STOP_CHALLENGER,
    ]
    errors = next(gate for gate in decision.gates if gate.name == "errors")
    assert errors.verdict is Verdict.FAIL
    assert errors.champion is not None
    assert errors.challenger is not None
    assert errors.challenger.events / errors.challenger.n > 0.3
    assert errors.evidence is not None
    assert errors.threshold is not None
    assert errors.evidence >= errors.threshold
    assert errors.reason.startswith("the challenger is worse: failed ")


def test_a_slow_challenger_is_rolled_back_by_latency() -> None:
    engine = an_engine()
    decision = drive(engine, errors=(0.0, 0.0), slow=3.0)
    assert engine.state.phase is Phase.ROLLED_BACK
    assert [gate.name for gate in decision.gates if gate.verdict is Verdict.FAIL] == ["latency"]


def test_no_traffic_promotes_nothing() -> None:
    engine = an_engine()
    engine.decide(agreeing_pairs(400))
    for now in range(100):
        decision = engine.decide(Observed(now_s=1e6 + now))
    assert engine.state.phase is Phase.STEP
    assert engine.state.weight_percent == 10
    assert decision.verdict is Verdict.INCONCLUSIVE


def test_a_latency_that_is_no_number_takes_the_challenger_off() -> None:
    engine = an_engine()
    engine.decide(agreeing_pairs(400))
    bad = replace(next(attempts(1, 0.1, 1, errors=(0, 0))), latency_ms=math.nan)
    decision = engine.decide(Observed(now_s=3.0, records=(bad,)))
    assert decision.verdict is Verdict.ERROR
    assert decision.gates[0].reason == "attempt s1-0 has no plausible time or weight"
    assert engine.state.phase is Phase.PAUSED
    assert engine.state.weight_percent == 0


def test_replays_carry_no_evidence() -> None:
    engine = an_engine()
    engine.decide(agreeing_pairs(400))
    seen = tuple(
        replace(one, arm=Arm.CHAMPION, assigned=Arm.CHALLENGER, replay=True)
        for one in attempts(1, 0.1, 200, errors=(0.0, 0.0))
    )
    engine.decide(Observed(now_s=3.0, records=seen))
    assert engine.gates.errors.n.sum() == 0
    assert engine.state.requests == 0


def test_when_both_arms_fail_together_it_holds() -> None:
    engine = an_engine()
    engine.decide(agreeing_pairs(400))
    seen = tuple(attempts(5, 0.1, 3000, errors=(0.9, 0.9)))
    decision = engine.decide(Observed(now_s=3.0, records=seen))
    assert decision.verdict is Verdict.INCONCLUSIVE
    errors = next(gate for gate in decision.gates if gate.name == "errors")
    assert "the champion itself fails" in errors.reason
    assert errors.reason.endswith("held, not judged")


def test_a_heavy_user_counts_once() -> None:
    engine = an_engine()
    engine.decide(agreeing_pairs(400))
    one = next(a for a in attempts(1, 0.1, 99, errors=(1, 1)) if a.arm is Arm.CHALLENGER)
    seen = tuple(replace(one, request_id=str(i), key_hash="heavy") for i in range(500))
    engine.decide(Observed(now_s=3.0, records=seen))
    assert engine.gates.errors.n[0].tolist() == [0, 1]
    assert engine.state.phase is Phase.STEP


def test_a_router_that_splits_wrongly_takes_the_challenger_off_and_asks_a_person() -> None:
    engine = an_engine()
    engine.decide(agreeing_pairs(400))
    seen = tuple(replace(a, weight=0.1) for a in attempts(3, 0.2, 6000, errors=(0.1, 0.1)))
    decision = engine.decide(Observed(now_s=3.0, records=seen))
    split = next(gate for gate in decision.gates if gate.name == "split")
    assert split.reason == "the router does not split as it was told"
    assert decision.verdict is split.verdict is Verdict.ERROR
    assert (engine.state.phase, engine.state.weight_percent) == (Phase.PAUSED, 0)
    assert not engine.gates.errors.failed.any()


def test_late_labels_are_joined_to_the_arm_that_answered() -> None:
    engine = an_engine()
    engine.decide(agreeing_pairs(400))
    seen = tuple(attempts(4, 0.1, 4000, errors=(0.0, 0.0)))
    engine.decide(Observed(now_s=3.0, records=seen))
    labels = tuple(
        Label(request_id=a.request_id, time_s=9.0, correct=a.arm is Arm.CHAMPION) for a in seen
    )
    unknown = Label(request_id="nobody's", time_s=9.0, correct=False)
    decision = engine.decide(Observed(now_s=9.0, records=(*labels, *labels, unknown)))
    assert engine.gates.labels.n.sum() == 4000
    accuracy = next(gate for gate in decision.gates if gate.name == "accuracy")
    assert accuracy.verdict is Verdict.FAIL
    assert engine.state.phase is Phase.ROLLED_BACK


def test_the_first_release_bakes_at_once_and_is_judged_by_an_absolute_bound() -> None:
    good, bad = (an_engine(champion=None) for _ in range(2))
    assert good.state.phase is Phase.BAKE
    assert good.state.weight_percent == 100
    good.decide(Observed(now_s=2.0, records=tuple(attempts(1, 1.0, 200, errors=(0, 0)))))
    bad.decide(Observed(now_s=2.0, records=tuple(attempts(1, 1.0, 200, errors=(0, 0.5)))))
    assert good.state.phase is Phase.PROMOTED
    assert bad.state.phase is Phase.ROLLED_BACK


def test_a_leak_in_the_bake_is_compared_again_then_rolled_back() -> None:
    engine = an_engine(a_plan(bake_requests=5000))
    engine.decide(agreeing_pairs(400))
    phases = []
    for round_ in range(200):
        phases.append(engine.state.phase)
        if engine.state.over:
            break
        leak = 0.5 if Phase.BAKE in phases else 0.01
        weight = engine.state.weight_percent / 100
        seen = tuple(attempts(round_, weight, 100, errors=(0.01, leak)))
        engine.decide(Observed(now_s=3.0 + round_, records=seen))
    order = list(dict.fromkeys(phases))
    assert order == [Phase.STEP, Phase.BAKE, Phase.ROLLED_BACK]
    assert phases[phases.index(Phase.BAKE) :].count(Phase.STEP) >= 1


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.ERROR])
def test_the_offline_gate_keeps_a_bad_release_off_all_traffic(verdict: Verdict) -> None:
    engine = an_engine()
    fresh = Engine(engine.begin)
    decision = fresh.decide(Offline(now_s=0.0, results=(PASSED, replace(PASSED, verdict=verdict))))
    assert fresh.state.phase is Phase.ABORTED
    assert decision.reason == f"the offline gate says {verdict.value}"


@pytest.mark.parametrize("on_drift", ["hold", "rerun"])
def test_drift_after_the_promotion_asks_for_a_new_release_once(on_drift: str) -> None:
    engine = an_engine(a_plan(on_drift=on_drift), reference=(0.5, 0.5))
    drive(engine, errors=(0.01, 0.01))
    assert engine.state.phase is Phase.PROMOTED
    inputs = [
        InputObservation(request_id=str(i), time_s=9.0, arm=Arm.CHALLENGER, bin_index=1)
        for i in range(200)
    ]
    decisions = [
        engine.decide(Observed(now_s=500.0 + index, records=(one,)))
        for index, one in enumerate(inputs)
    ]
    asked = [decision for decision in decisions if decision.actions]
    assert [one.actions for one in asked] == [(Action(ActionKind.RUN_AGAIN),)] * (
        on_drift == "rerun"
    )
    assert decisions[-1].gates[-1].reason == "inputs of challenger left the training data: held"
