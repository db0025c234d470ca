"""One fold: the controller's results, its decision and the simulator's codes never differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_traffic import a_plan

from benchmarks.canary import ours
from benchmarks.canary.ours import Length, Outcomes, Walk
from fettle.rollout.promotion import gate_results, rollout_state, verdict_fold
from fettle.rollout.promotion import gates as g
from fettle.rollout.promotion.gate_thresholds import Thresholds
from fettle.rollout.promotion.gate_verdict import Verdict, worst
from fettle.rollout.promotion.gates import Gates
from fettle.rollout.promotion.rollout_state import Phase, RolloutState, Signs
from fettle.rollout.promotion.verdict_fold import PHASES, Code

PLAN = a_plan(shadow_gates=["accuracy", "disagreement"])
BARS = Thresholds.of(PLAN, images=50)
START = RolloutState(rollout_id="r", challenger="b", champion="a")
bit = st.booleans()


@st.composite
def any_gates(draw: st.DrawFn) -> Gates:
    """Gates in any state that their flags can be in."""
    made = g.start()
    for flags in (
        *(made.spans[name] for name in made.spans),
        made.errors,
        made.refused,
        made.labels,
        made.alarm_errors,
        made.alarm_latency,
        made.alarm_labels,
    ):
        flags.failed[:] = draw(st.integers(0, 5)) == 0
        flags.passed[:] = draw(bit)
    made.split.alarm[:] = draw(st.integers(0, 5)) == 0
    made.alarm_errors.n[:] = draw(st.sampled_from([0, 9]))
    made.labels.n[:] = draw(st.sampled_from([0, 9]))
    made.alarm_labels.n[:] = draw(st.sampled_from([0, 9]))
    made.labels.failed &= made.labels.n[:, 0] > 0  # without a label nothing fails
    made.alarm_labels.failed &= made.alarm_labels.n > 0
    made.shadow.n[:] = draw(st.sampled_from([0, 49, 50]))
    judged = made.shadow.n == 50
    for name in ("accuracy_passed", "accuracy_failed", "disagreement_passed"):
        getattr(made.shadow, name)[:] = judged & draw(bit)
    made.shadow.disagreement_failed[:] = judged & draw(bit) & ~made.shadow.disagreement_passed
    made.shadow.accuracy_passed &= ~made.shadow.accuracy_failed
    return made


@given(any_gates(), st.sampled_from(PHASES), st.integers(0, len(PLAN.steps) - 1))
@settings(max_examples=400, deadline=None)
def test_what_people_read_adds_up_to_what_both_decide_by(
    gates: Gates, phase: Phase, step_index: int
) -> None:
    state = replace(START, phase=phase, step_index=step_index)
    shown = gate_results.of(gates, BARS, PLAN, state, drift=None, error=None)
    at = np.array([PHASES.index(phase)])
    code = verdict_fold.codes(gates, BARS, PLAN, at, np.array([step_index]))
    assert worst(one.verdict for one in shown) is Code(int(code[0])).verdict()


def walk_at(phase: Phase, step_index: int, since: int, alarms: int) -> Walk:
    whole = {Phase.STEP: ours.STEP, Phase.BAKE: ours.BAKE, Phase.PROMOTED: ours.WATCH}
    counts = (np.array([one]) for one in (0, whole[phase], step_index, since, 0, alarms))
    return Walk(*counts, np.array([False]))


@pytest.mark.parametrize("verdict", [*Verdict])
@pytest.mark.parametrize("step_index", [0, 1])
@pytest.mark.parametrize("phase", [Phase.STEP, Phase.BAKE, Phase.PROMOTED])
@pytest.mark.parametrize("since", [0, 99, 100, 50_000])
@pytest.mark.parametrize("alarms", [0, 1])
def test_the_simulator_moves_as_the_state_machine_does(
    phase: Phase, step_index: int, verdict: Verdict, since: int, alarms: int
) -> None:
    state = replace(START, phase=phase, step_index=step_index, alarms=alarms)
    new, _, _ = rollout_state.step(state, verdict, PLAN, 1e9, requests=since, signs=Signs())
    walk = walk_at(phase, step_index, since, alarms)
    out = Outcomes(*(np.zeros(1, np.int64) for _ in range(8)))
    code = np.array([Code[verdict.value]])
    end, fresh = ours.move(walk, code, PLAN, out, Length(10**9, watch=10**9), 1)
    ended = {
        Phase.ROLLED_BACK: ours.ROLLED_BACK,
        Phase.PAUSED: ours.HELD,
    }.get(new.phase, 0)
    if phase is Phase.PROMOTED and verdict is Verdict.ERROR:
        return  # the watch's analysis may fail; nothing is drawn any more, so nothing moves
    assert end[0] == ended
    if ended:
        return
    now = {ours.STEP: Phase.STEP, ours.BAKE: Phase.BAKE, ours.WATCH: Phase.PROMOTED}
    assert now[int(walk.phase[0])] is new.phase
    assert walk.step[0] == new.step_index
    assert bool(fresh[0]) == (new.phase is not phase or new.step_index != step_index)
