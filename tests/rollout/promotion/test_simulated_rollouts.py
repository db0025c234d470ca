"""The controller and the simulator are one; the simulator's rates hold at a reduced n."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_traffic import a_plan, agreeing_pairs, an_engine

from benchmarks.canary import ours, rivals, worlds
from benchmarks.canary.simulated_cell import upper
from benchmarks.canary.worlds import Challenger
from fettle.rollout.promotion import gates as g
from fettle.rollout.promotion import verdict_fold
from fettle.rollout.promotion.decision_engine import Observed
from fettle.rollout.promotion.gate_thresholds import Thresholds
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.gates import Drawn
from fettle.rollout.promotion.request_records import Arm, Attempt
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.rollout_state import Phase
from fettle.rollout.promotion.verdict_fold import Code

PLAN = a_plan(errors_margin=0.03, latency_p95_ratio=1.5, step_budget_requests=8000)


@pytest.mark.parametrize(
    ("kind", "challenger"),
    [
        ("plain", Challenger()),
        ("plain", Challenger(times=6.0)),
        ("plain", Challenger(slow=2.0)),
        ("bursts", Challenger()),
        ("sticky heavy users", Challenger()),
    ],
)
def test_the_controller_and_the_simulator_say_the_same_after_every_request(
    kind: str, challenger: Challenger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "USERS", 500)
    world = worlds.make(kind, challenger, 1, 3)
    engine, bars, gates, step = an_engine(PLAN), Thresholds.of(PLAN), g.start(), np.array([0])
    engine.decide(agreeing_pairs(400))
    assert engine.state.phase is Phase.STEP
    compared = 0
    for t in range(4000):
        weight = np.array([PLAN.steps[step[0]].weight])
        drawn, chance = world.assign(weight)
        seen = world.draw(t, drawn)
        latency_ms = float(np.exp(seen.log_ms[0]))
        none = np.zeros(1, bool)
        g.take_request(
            gates,
            PLAN,
            bars,
            step,
            Drawn(drawn, chance, seen.failed, none, none, np.log([latency_ms])),
        )
        code = Code(int(verdict_fold.codes(gates, bars, PLAN, np.array([1]), step)[0]))
        arm = Arm.CHALLENGER if drawn[0] else Arm.CHAMPION
        one = Attempt(
            request_id=str(t),
            time_s=float(t),
            arm=arm,
            assigned=arm,
            weight=float(weight[0]),
            status=500 if seen.failed[0] else 200,
            latency_ms=latency_ms,
            key_hash=str(world.state["user"][0]) if world.sticky else None,
        )
        decision = engine.decide(Observed(now_s=float(t), records=(one,)))
        assert decision.verdict is code.verdict(), f"request {t}"
        compared += 1
        if code is Code.PASS:
            step = step + 1
            g.renew_step(gates, np.array([True]))
        if code is Code.FAIL or step[0] == len(PLAN.steps):
            break
        assert engine.gates.errors.worse.tobytes() == gates.errors.worse.tobytes()
        assert engine.gates.blocks.full.tobytes() == gates.blocks.full.tobytes()
    ended = {Phase.ROLLED_BACK, Phase.BAKE, Phase.STEP}
    assert engine.state.phase in ended
    assert compared > 10
    if challenger != Challenger():
        assert engine.state.phase is Phase.ROLLED_BACK


def ends(kind: str, challenger: Challenger, rows: int, plan: RolloutPlan = PLAN) -> ours.Outcomes:
    world = worlds.make(kind, challenger, rows, 11)
    return ours.roll(world, plan, ours.Length(6000, history=False))


def test_an_equal_challenger_is_seldom_rolled_back_and_nearly_always_promoted() -> None:
    out = ends("plain", Challenger(), 300)
    assert upper(int((out.end == ours.ROLLED_BACK).sum()), 300) < 0.03
    assert out.share(ours.PROMOTED) > 0.9


@pytest.mark.parametrize("challenger", [Challenger(plus=0.03), Challenger(slow=1.5)])
def test_a_challenger_at_the_margin_is_seldom_promoted(challenger: Challenger) -> None:
    out = ends("plain", challenger, 200)
    assert upper(int((out.end == ours.PROMOTED).sum()), 200) < 0.04


def test_bursts_that_both_arms_share_roll_nothing_back() -> None:
    out = ends("bursts", Challenger(), 100)
    assert upper(int((out.end == ours.ROLLED_BACK).sum()), 100) < 0.05


def test_a_dead_challenger_is_off_within_ten_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a log of the champion's: without one its errors are taken to come in threes."""
    monkeypatch.setattr(ours, "HISTORY_BLOCKS", 3)
    world = worlds.make("plain", Challenger(times=100.0), 200, 11)
    out = ours.roll(world, PLAN, ours.Length(6000))
    assert out.share(ours.ROLLED_BACK) == 1.0
    assert np.quantile(out.canary_requests, 0.95) <= 10


def test_the_shadow_stops_what_answers_too_differently() -> None:
    world = worlds.make("plain", Challenger(disagree=0.4), 100, 2)
    out = ours.roll(world, a_plan(), ours.Length(1, shadow_images=400, history=False))
    assert out.share(ours.ROLLED_BACK) == 1.0
    assert out.pairs.max() == 400


def test_other_tools_promote_what_doubles_the_errors_as_was_computed_by_hand() -> None:
    """ANCHORS' arithmetic for Flagger's README: 2 % errors promoted with 0.965 at 60 a minute...

    there with the whole minute's 60 requests on the canary; here its weight gives it 3 to 30.
    """
    world = worlds.make("plain", Challenger(plus=0.01), 60, 4)
    out = rivals.flagger(world, 60, careful=False)
    assert (out.end == rivals.PROMOTED).mean() > 0.5
    dead = rivals.flagger(worlds.make("plain", Challenger(times=100), 5, 4), 60, careful=False)
    assert (dead.end == rivals.ROLLED_BACK).all()
    assert (dead.minutes == 10).all()


def test_verdicts_have_one_name_in_both_forms() -> None:
    assert [one.verdict() for one in Code] == [
        Verdict.INCONCLUSIVE,
        Verdict.PASS,
        Verdict.FAIL,
        Verdict.ERROR,
    ]
