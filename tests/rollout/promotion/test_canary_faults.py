"""The faults that reviews found in the canary's decisions, each with what holds now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from simulated_traffic import a_plan, agreeing_pairs, an_engine, attempts

from fettle.rollout.promotion import champion_history
from fettle.rollout.promotion.decision_engine import Decision, Engine, Observed
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.request_records import (
    CLIENT_GONE,
    Arm,
    Attempt,
    Label,
    judged_ms,
    refused,
)
from fettle.rollout.promotion.rollout_state import Action, ActionKind, Phase

PLAN = a_plan(step_budget_requests=8000, errors_margin=0.03)


def drive(engine: Engine, changed: dict[Arm, dict[str, object]], share: float) -> Decision:
    """Feed traffic of which one arm's `share` is changed, until the rollout stands still."""
    decision = engine.decide(agreeing_pairs(400))
    rng = np.random.default_rng(5)
    for round_ in range(120):
        if engine.state.over or engine.state.phase in (Phase.PROMOTED, Phase.PAUSED):
            break
        weight = engine.state.weight_percent / 100
        seen = tuple(
            replace(one, **changed.get(one.arm, {})) if rng.random() < share else one  # type: ignore[arg-type]
            for one in attempts(round_, weight, 100, errors=(0.0, 0.0))
        )
        decision = engine.decide(Observed(now_s=2.0 + round_, records=seen))
    return decision


def failing(decision: Decision) -> list[str]:
    return [gate.name for gate in decision.gates if gate.verdict is Verdict.FAIL]


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_challenger_that_refuses_what_the_champion_takes_is_rolled_back(status: int) -> None:
    engine = an_engine(PLAN)
    decision = drive(engine, {Arm.CHALLENGER: {"status": status}}, 0.3)
    assert engine.state.phase is Phase.ROLLED_BACK
    assert failing(decision) == ["refused"]
    gate = next(one for one in decision.gates if one.name == "refused")
    assert gate.reason.startswith("the challenger is worse: refused or left by their callers ")


def test_callers_own_mistakes_on_both_arms_are_nobody_s_fault() -> None:
    engine = an_engine(PLAN)
    both = {arm: {"status": 404} for arm in Arm}
    drive(engine, both, 0.02)
    assert engine.state.phase is Phase.PROMOTED


def test_a_challenger_that_hangs_until_its_callers_leave_is_rolled_back() -> None:
    """Its 499s were left out: with 10 % it was promoted in 71 of 100 rollouts."""
    engine = an_engine(PLAN)
    decision = drive(engine, {Arm.CHALLENGER: {"status": CLIENT_GONE, "latency_ms": 2000.0}}, 0.1)
    assert engine.state.phase is Phase.ROLLED_BACK
    assert "refused" in failing(decision)


def test_a_wait_that_was_given_up_is_a_latency_of_at_least_that() -> None:
    """Right-censored: who waited beyond the threshold was slow, who left before says nothing."""
    engine = an_engine(PLAN, history=a_history())
    engine.decide(agreeing_pairs(400))
    one = next(a for a in attempts(1, 0.1, 99, errors=(0, 0)) if a.arm is Arm.CHALLENGER)
    for ms, timed in ((1.0, 0), (5000.0, 1)):
        left = replace(one, status=CLIENT_GONE, latency_ms=ms, request_id=f"left after {ms}")
        engine.decide(Observed(now_s=3.0, records=(left,)))
        latency = next(g for g in engine.decide(Observed(now_s=4.0)).gates if g.name == "latency")
        assert latency.challenger is not None
        assert (latency.challenger.events, latency.challenger.n) == (timed, timed)


def a_history() -> champion_history.ChampionHistory:
    rng = np.random.default_rng(1)
    n = 4096
    made = champion_history.learn(
        failed=rng.random(n) < 0.01,
        refused=np.zeros(n, bool),
        log_ms=np.log(20) + 0.3 * rng.standard_normal(n),
    )
    assert made is not None
    return made


def test_a_first_answer_of_0_ms_does_not_poison_the_latency_gate() -> None:
    """It made half of equal challengers at 1 ms wait for ever: the threshold began at 0.001 ms."""
    engine = an_engine(PLAN)
    engine.decide(agreeing_pairs(400))
    seen = [
        replace(one, latency_ms=0.0 if at == 0 else one.latency_ms / 20)
        for at, one in enumerate(attempts(1, 0.1, 300, errors=(0, 0)))
    ]
    engine.decide(Observed(now_s=3.0, records=tuple(seen)))
    assert 1.0 < float(np.exp(engine.gates.tail.log_tau[0])) < 2.5


@pytest.mark.parametrize(
    ("router_ms", "own_ms", "judged"),
    [(1.0, 0.43, 0.43), (0.0, 0.43, 0.43), (5.0, None, 5.0), (50.0, 0.43, 50.0), (3.0, 9.0, 9.0)],
)
def test_the_finer_own_time_counts_and_nobody_gains_by_reporting_less(
    router_ms: float, own_ms: float | None, judged: float
) -> None:
    assert judged_ms(router_ms, own_ms) == judged


@pytest.mark.parametrize("status", [200, 429, CLIENT_GONE, 500])
def test_what_is_no_refusal(status: int) -> None:
    assert not refused(status)


def promoted() -> Engine:
    engine = an_engine(PLAN)
    drive(engine, {}, 0.0)
    assert engine.state.phase is Phase.PROMOTED
    return engine


def busy(times: float, n: int, errors: float = 0.0) -> Iterator[Attempt]:
    for one in attempts(7, 1.0, n, errors=(errors, errors)):
        yield replace(one, latency_ms=times * one.latency_ms)


def test_a_busy_hour_after_the_promotion_pages_a_person_once_and_undoes_nothing() -> None:
    """+30 % latency undid an equal release within 500 requests."""
    engine = promoted()
    first = engine.decide(Observed(now_s=500.0, records=tuple(busy(2.5, 1000))))
    again = engine.decide(Observed(now_s=501.0, records=tuple(busy(2.5, 1000))))
    assert (engine.state.phase, engine.state.weight_percent) == (Phase.PROMOTED, 100)
    assert first.actions == (Action(ActionKind.PAGE),)
    assert again.actions == ()
    said = "promoted; an alarm: a person decides (fettle canary undo)"
    assert first.reason == again.reason == said
    latency = next(gate for gate in first.gates if gate.name == "latency")
    assert latency.verdict is Verdict.INCONCLUSIVE
    assert latency.reason.endswith("an alarm, a person decides (fettle canary undo)")


def test_an_hour_as_busy_as_the_log_knows_raises_no_alarm() -> None:
    worst = replace(a_history(), worst_log_tau=float(np.log(100.0)), worst_errors=0.2)
    engine = an_engine(PLAN, history=worst)
    drive(engine, {}, 0.0)
    decision = engine.decide(Observed(now_s=500.0, records=tuple(busy(2.5, 2000, errors=0.15))))
    assert (engine.state.phase, decision.actions) == (Phase.PROMOTED, ())


def test_late_labels_of_drawn_requests_still_undo() -> None:
    engine = an_engine(PLAN)
    engine.decide(agreeing_pairs(400))
    kept: list[Attempt] = []
    for round_ in range(120):
        if engine.state.phase is Phase.PROMOTED:
            break
        weight = engine.state.weight_percent / 100
        seen = tuple(attempts(round_, weight, 100, errors=(0.0, 0.0)))
        kept += seen if weight < 1 else ()
        engine.decide(Observed(now_s=2.0 + round_, records=seen))
    labels = tuple(
        Label(request_id=one.request_id, time_s=9.0, correct=one.arm is Arm.CHAMPION)
        for one in kept
    )
    decision = engine.decide(Observed(now_s=900.0, records=labels))
    assert engine.state.phase is Phase.ROLLED_BACK
    assert decision.reason == "a gate failed after promotion"


def test_the_champion_s_clusters_in_the_log_slow_the_fast_path_down() -> None:
    """A burst of one arm's own looks like a dead release until bursts are known."""
    rng = np.random.default_rng(2)
    bursts = np.repeat(rng.random(48 * 1024 // 64) < 0.02, 64)
    failed = rng.random(48 * 1024) < np.where(bursts, 0.5, 0.002)
    none = np.zeros(48 * 1024, bool)
    known = champion_history.learn(failed=failed, refused=none, log_ms=np.zeros(48 * 1024))
    calm, clustered = an_engine(PLAN, history=a_history()), an_engine(PLAN, history=known)
    assert calm.gates.error_clusters.effect[0] == 1.0
    assert clustered.gates.error_clusters.effect[0] > 10
    for engine, phase in ((calm, Phase.ROLLED_BACK), (clustered, Phase.STEP)):
        engine.decide(agreeing_pairs(400))
        seen = tuple(
            replace(one, status=500 if one.arm is Arm.CHALLENGER and at < 150 else 200)
            for at, one in enumerate(attempts(3, 0.1, 400, errors=(0, 0)))
        )
        engine.decide(Observed(now_s=3.0, records=seen))
        assert engine.state.phase is phase


def test_a_log_of_too_few_requests_is_no_history() -> None:
    none = np.zeros(1000, bool)
    assert champion_history.learn(failed=none, refused=none, log_ms=np.zeros(1000)) is None
