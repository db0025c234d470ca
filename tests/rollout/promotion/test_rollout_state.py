from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_traffic import a_plan

from fettle.rollout.promotion.gate_verdict import Verdict, worst
from fettle.rollout.promotion.rollout_state import (
    Action,
    ActionKind,
    Outcome,
    Phase,
    RolloutState,
    Signs,
    Verb,
    order,
    step,
)

PLAN = a_plan(step_budget_requests=1000)
START = RolloutState(rollout_id="r", challenger="b", champion="a")

moves = st.lists(
    st.tuples(st.one_of(st.sampled_from(Verdict), st.sampled_from(Verb)), st.integers(0, 3000)),
    max_size=40,
)


def move(state: RolloutState, what: Verdict | Verb, requests: int, now_s: float) -> Outcome:
    if isinstance(what, Verb):
        return order(state, what, PLAN, now_s)
    plan = replace(PLAN, on_drift="rerun")
    return step(state, what, plan, now_s, requests=requests, signs=Signs(stale=requests % 2 == 1))


@given(moves, st.sampled_from(["a", None]))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_the_rules_hold(
    story: list[tuple[Verdict | Verb, int]], champion: str | None
) -> None:
    state = replace(START, champion=champion)
    for now, (what, requests) in enumerate(story):
        new, actions, reason = move(state, what, requests, float(now))
        assert reason
        if new.weight_percent > state.weight_percent:
            assert what in (Verdict.PASS, Verb.RESUME, Verb.PROMOTE)
        if new.phase in (Phase.ROLLED_BACK, Phase.ABORTED):
            assert new.weight_percent == 0
        if state.over:
            assert replace(new, requests=0) == replace(state, requests=0)
            assert actions == ()
        assert (AGAIN in actions) == (new.ran_again and not state.ran_again)
        if AGAIN in actions:
            assert state.phase is Phase.PROMOTED
        if state.phase is Phase.PROMOTED:
            assert new.phase in (Phase.PROMOTED, Phase.ROLLED_BACK)
        if new.weight_percent != state.weight_percent:
            assert Action(ActionKind.SET_WEIGHT, new.weight_percent) in actions
        if new.phase is Phase.PROMOTED and state.phase is not Phase.PROMOTED:
            assert (state.phase, what) == (Phase.BAKE, Verdict.PASS)
        state = new


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.STEP])
def test_a_spent_budget_pauses_at_the_weight_it_has(phase: Phase) -> None:
    weight = 10.0 if phase is Phase.STEP else 0.0
    state = replace(START, phase=phase, weight_percent=weight)
    new, actions, reason = step(state, Verdict.INCONCLUSIVE, PLAN, 1.0, requests=1000)
    assert (new.phase, new.weight_percent, actions) == (Phase.PAUSED, weight, ())
    assert reason.endswith("the budget of 1000 requests is spent")


def test_a_failed_analysis_takes_the_challenger_off_the_traffic() -> None:
    state = replace(START, phase=Phase.STEP, step_index=1, weight_percent=50.0)
    new, actions, reason = step(state, Verdict.ERROR, PLAN, 1.0)
    assert (new.phase, new.weight_percent) == (Phase.PAUSED, 0.0)
    assert actions == (Action(ActionKind.SET_WEIGHT, 0.0),)
    assert reason == "the analysis failed at 50 %: weight 0"
    back, actions, _ = order(new, Verb.RESUME, PLAN, 2.0)
    assert (back.phase, back.step_index, back.weight_percent) == (Phase.STEP, 1, 50.0)
    assert actions[-1] == Action(ActionKind.SET_WEIGHT, 50.0)


def test_an_alarm_in_the_bake_goes_back_to_the_last_comparison() -> None:
    state = replace(START, phase=Phase.BAKE, step_index=1, weight_percent=100.0)
    new, _, reason = step(state, Verdict.FAIL, PLAN, 1.0)
    assert (new.phase, new.step_index, new.weight_percent) == (Phase.STEP, 1, 50.0)
    assert reason == "alarm in the bake: compare once more"
    again, _, reason = step(replace(new, phase=Phase.BAKE), Verdict.FAIL, PLAN, 2.0)
    assert (again.phase, again.weight_percent) == (Phase.PAUSED, 50.0)
    assert reason == "a second alarm in the bake: a person decides"


PROMOTED = replace(START, phase=Phase.PROMOTED, weight_percent=100.0)
AGAIN = Action(ActionKind.RUN_AGAIN)


def test_drift_after_the_promotion_makes_a_new_release_once_where_the_plan_says_so() -> None:
    plan = replace(PLAN, on_drift="rerun")
    new, actions, reason = step(PROMOTED, Verdict.INCONCLUSIVE, plan, 1.0, signs=Signs(stale=True))
    assert (new.phase, actions) == (Phase.PROMOTED, (AGAIN,))
    assert reason == "promoted; the watch goes on; the release flow runs again"
    assert step(new, Verdict.INCONCLUSIVE, plan, 2.0, signs=Signs(stale=True))[1] == ()
    assert step(PROMOTED, Verdict.INCONCLUSIVE, plan, 1.0)[1] == ()
    assert (
        step(PROMOTED, Verdict.INCONCLUSIVE, PLAN, 1.0, signs=Signs(stale=True))[1] == ()
    )  # it holds


def test_wrong_late_labels_move_the_traffic_back_before_a_new_release_is_made() -> None:
    plan = replace(PLAN, on_drift="rerun")
    new, actions, reason = step(PROMOTED, Verdict.FAIL, plan, 1.0, signs=Signs(stale=True))
    kinds = [action.kind for action in actions]
    assert (new.phase, new.weight_percent) == (Phase.ROLLED_BACK, 0.0)
    assert kinds == [
        *(
            ActionKind.SET_WEIGHT,
            ActionKind.STOP_CHALLENGER,
            ActionKind.RESTORE_ALIASES,
            ActionKind.RUN_AGAIN,
        )
    ]
    assert reason == "a gate failed after promotion; the release flow runs again"


def test_undo_restores_traffic_before_names() -> None:
    state = replace(START, phase=Phase.PROMOTED, weight_percent=100.0)
    new, actions, _ = order(state, Verb.UNDO, PLAN, 1.0)
    kinds = [action.kind for action in actions]
    assert new.phase is Phase.ROLLED_BACK
    assert kinds == [ActionKind.SET_WEIGHT, ActionKind.STOP_CHALLENGER, ActionKind.RESTORE_ALIASES]


def test_an_order_that_does_not_fit_says_so() -> None:
    state = replace(START, phase=Phase.ROLLED_BACK)
    assert order(state, Verb.PROMOTE, PLAN, 1.0)[2] == (
        "promote does not fit a rollout that is rolled_back"
    )


def test_no_verdict_at_all_is_inconclusive_and_the_worst_counts() -> None:
    assert worst([]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert worst([Verdict.ERROR, Verdict.INCONCLUSIVE]) is Verdict.ERROR
    assert worst([Verdict.ERROR, Verdict.FAIL, Verdict.PASS]) is Verdict.FAIL
