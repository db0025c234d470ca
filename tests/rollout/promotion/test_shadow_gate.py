"""The shadow: each held-out image is one pair at most, and all of them are judged once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_traffic import a_plan, agreeing_pairs, an_engine

from fettle.params_schema import Promote
from fettle.rollout.promotion import shadow_gate
from fettle.rollout.promotion.decision_engine import Observed
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.request_records import ShadowPair
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.rollout_state import Phase, Verb, order

PLAN = RolloutPlan.of(Promote())
ROWS = 600


def asked(images: int, *, lost: float = 0.0, seed: int = 1) -> shadow_gate.ShadowGate:
    """Ask so many images of both arms; 1 % wrong alone on each side, `lost` more on one."""
    rng, state = np.random.default_rng(seed), shadow_gate.start(ROWS)
    for _ in range(images):
        u = rng.random(ROWS)
        mine, other = u < 0.01, u > 0.99 - lost
        shadow_gate.update(
            state, PLAN, images, differ=mine | other, champion_wrong=mine, challenger_wrong=other
        )
    return state


@pytest.mark.parametrize("images", [300, 899])
def test_an_equal_challenger_passes_at_the_margin_that_its_images_decide(images: int) -> None:
    found = asked(images)
    assert found.accuracy_passed.mean() > 0.9
    assert found.accuracy_failed.mean() <= 0.005
    assert found.disagreement_passed.mean() > 0.9


@pytest.mark.parametrize("images", [300, 899])
def test_one_that_loses_that_margin_seldom_passes(images: int) -> None:
    margin = shadow_gate.accuracy_margin(PLAN, images)
    assert asked(images, lost=margin).accuracy_passed.mean() <= 0.02


def test_few_images_ask_for_a_wider_margin_and_many_for_the_plan_s() -> None:
    margins = [shadow_gate.accuracy_margin(PLAN, images) for images in (300, 899, 2000, 10_000)]
    assert margins == sorted(margins, reverse=True)
    assert margins[0] > 0.03
    assert margins[-1] == PLAN.accuracy_margin
    assert shadow_gate.accuracy_margin(PLAN, 0) == 1.0


def test_pairs_beyond_the_images_tell_nothing() -> None:
    """The same images again are no new evidence: the counts stand still."""
    state, yes, no = shadow_gate.start(), np.array([True]), np.array([False])
    for number in range(250):
        wrong = yes if number >= 100 else no
        shadow_gate.update(
            state, PLAN, 100, differ=wrong, champion_wrong=no, challenger_wrong=wrong
        )
    assert (state.n[0], state.lost[0], state.differ[0]) == (100, 0, 0)
    assert not state.accuracy_failed[0]


def test_a_shadow_that_does_not_decide_pauses_and_a_resume_goes_on_at_the_first_step() -> None:
    engine = an_engine(a_plan(shadow_gates=["accuracy"]), images=60)
    pairs = tuple(
        ShadowPair(
            request_id=f"p{at}",
            time_s=1.0,
            champion="1",
            challenger="2" if at < 6 else "1",
            label="1",
        )
        for at in range(60)
    )
    decision = engine.decide(Observed(now_s=1.0, records=pairs))
    assert decision.verdict is Verdict.INCONCLUSIVE
    assert engine.state.phase is Phase.PAUSED
    assert decision.reason == (
        "shadow: its images are all answered and do not decide; resume goes on at the first step"
    )
    back, _, _ = order(engine.state, Verb.RESUME, engine.plan, 2.0)
    assert (back.phase, back.step_index, back.weight_percent) == (Phase.STEP, 0, 10.0)


def test_no_held_out_image_at_all_pauses_with_the_reason() -> None:
    engine = an_engine(images=0)
    decision = engine.decide(Observed(now_s=1.0))
    shadow = next(gate for gate in decision.gates if gate.name == "shadow")
    assert shadow.reason == "no held-out image: the data of the release is gone"
    assert engine.state.phase is Phase.PAUSED


def test_the_margin_that_was_used_is_said() -> None:
    engine = an_engine(replace(a_plan(shadow_gates=["accuracy"]), accuracy_margin=0.01), images=400)
    decision = engine.decide(agreeing_pairs(399))
    accuracy = next(gate for gate in decision.gates if gate.name == "accuracy")
    margin = shadow_gate.accuracy_margin(engine.plan, 400)
    assert accuracy.reason == (
        f"neither worse nor proved within {100 * margin:g} points (the least 400 images decide): "
        "wrong 0 of 399 (0.00%) against 0 of 399 (0.00%), each once"
    )
