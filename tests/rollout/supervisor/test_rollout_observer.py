from __future__ import annotations

import pytest

from fettle.params_schema import Promote
from fettle.rollout.promotion import rollout_state
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.rollout_state import Phase, RolloutState, Verb
from fettle.rollout.supervisor.rollout_observer import why


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.INCONCLUSIVE])
def test_a_paused_rollout_goes_on_saying_why_it_was_paused(verdict: Verdict) -> None:
    plan = RolloutPlan.of(Promote())
    begun = RolloutState(
        rollout_id="r", challenger="b", champion="a", phase=Phase.STEP, weight_percent=1.0
    )
    paused, _, reason = rollout_state.order(begun, Verb.PAUSE, plan, 1.0)
    said = why(reason, before="begun")
    for now_s in (2.0, 3.0):
        paused, _, reason = rollout_state.step(paused, verdict, plan, now_s, requests=10)
        said = why(reason, before=said)
    assert said == "paused by order"


def test_a_paused_challenger_that_nobody_can_judge_loses_its_users_and_it_is_said() -> None:
    plan = RolloutPlan.of(Promote())
    begun = RolloutState(
        rollout_id="r", challenger="b", champion="a", phase=Phase.STEP, weight_percent=1.0
    )
    paused, _, reason = rollout_state.order(begun, Verb.PAUSE, plan, 1.0)
    said = why(reason, before="begun")
    moved = []
    for now_s in (2.0, 3.0):
        paused, actions, reason = rollout_state.step(paused, Verdict.ERROR, plan, now_s)
        said = why(reason, before=said)
        moved.append([action.weight_percent for action in actions])
    assert (paused.phase, paused.weight_percent, moved) == (Phase.PAUSED, 0.0, [[0.0], []])
    assert said == "the analysis failed while paused: weight 0"
