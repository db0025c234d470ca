"""Rollout state machine: moved on by one observation; pure, the clock is passed in.

    pending ──PASS──▶ shadow ──PASS──▶ step 0 … step k ──PASS──▶ bake ──PASS──▶ promoted
       │ FAIL           │ FAIL            │ FAIL   ▲      └─alarm─▶ back to step k  │ FAIL, undo
       ▼                ▼                 ▼        └──────resume──── paused         ▼
    aborted          rolled_back       rolled_back                            rolled_back

- A weight rises after a PASS, or on a person's word (resume, promote), never otherwise.
- FAIL rolls back. ERROR sets the weight to 0 and pauses: nobody watches the challenger.
- INCONCLUSIVE holds; past the step's budget it pauses at the weight it has, and asks a person. So
  does a shadow whose images are all answered; there a resume goes on at the first step.
- In the bake (100 %) no champion is there to compare with, so a FAIL there is only an alarm: the
  weight goes back to the last step with a control, and its gates decide.
- rolled_back and aborted absorb. promoted leads only to rolled_back (late labels of requests that
  were drawn, `undo`). An alarm there, with no champion beside, may be a busy hour: it pages a
  person, once, and moves nothing. Drift or late labels beyond their bound may begin the release
  flow again (promote.on_drift).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.rollout_plan import RolloutPlan


class Phase(StrEnum):
    """Where a rollout stands."""

    PENDING = "pending"
    SHADOW = "shadow"
    STEP = "step"
    BAKE = "bake"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    PAUSED = "paused"


FINAL = frozenset({Phase.ROLLED_BACK, Phase.ABORTED})  # nothing can move it any more
BROKEN = "broken"  # no phase: what status.json says of a journal that cannot be folded
# No rollout is under way: the next may begin. Names as status.json has them.
OVER = frozenset({Phase.PROMOTED.value, *(phase.value for phase in FINAL), BROKEN})


def is_over(state: str) -> bool:
    """Tell whether a rollout that status.json says stands so is no longer under way."""
    return state in OVER


class Verb(StrEnum):
    """What a person may order. `retry` is no verb here: it starts a new rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    UNDO = "undo"
    STOP = "stop"  # the supervisor, not the rollout: it waits with its evidence


class ActionKind(StrEnum):
    """What the supervisor has to do; each may be repeated without harm."""

    START_CHALLENGER = "start_challenger"
    SET_WEIGHT = "set_weight"
    STOP_CHALLENGER = "stop_challenger"
    STOP_CHAMPION = "stop_champion"
    MOVE_ALIASES = "move_aliases"  # challenger → champion, champion → previous_champion
    RESTORE_ALIASES = "restore_aliases"  # back to what they were before the rollout
    RUN_AGAIN = "run_again"  # the release flow, on the data as it is now
    PAGE = "page"  # a person: something is to be decided that evidence does not decide


@dataclass(frozen=True, slots=True)
class Action:
    """One action; `weight_percent` only with SET_WEIGHT."""

    kind: ActionKind
    weight_percent: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutState:
    """Everything a decision needs of the past. `champion` is None for the first release."""

    rollout_id: str
    challenger: str
    champion: str | None
    phase: Phase = Phase.PENDING
    step_index: int = 0
    weight_percent: float = 0.0
    entered_s: float = 0.0
    requests: int = 0  # judged since this phase or step began
    paused_from: Phase | None = None
    alarms: int = 0  # in the bake; the plan's alpha pays for one more comparison, not for two
    ran_again: bool = False  # whether the watch after the promotion began the release flow again
    paged: bool = False  # whether the watch asked for a person

    @property
    def over(self) -> bool:
        """Whether nothing can move it any more."""
        return self.phase in FINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What is no verdict, but moves a rollout.

    spent: whether the shadow has no image left. stale: whether inputs or late labels have left
    what the release was made of, beyond their bound. alarm: whether a release that serves alone is
    worse than the champion was in its worst hour.
    """

    spent: bool = False
    stale: bool = False
    alarm: bool = False


NO_SIGNS = Signs()
STILL_PAUSED = "paused"  # says nothing new: the reason is that of the pause
Outcome = tuple[RolloutState, tuple[Action, ...], str]


def step(
    state: RolloutState,
    verdict: Verdict,
    plan: RolloutPlan,
    now_s: float,
    *,
    requests: int = 0,
    signs: Signs = NO_SIGNS,
) -> Outcome:
    """Return the state after one verdict, what to do, and why.

    `requests`: user requests (pairs, in shadow) judged since the phase or step began.
    """
    state = replace(state, requests=requests)
    match state.phase:
        case Phase.ROLLED_BACK | Phase.ABORTED:
            return state, (), f"{state.phase.value} is final"
        case Phase.PAUSED:
            return _paused(state, verdict, now_s)
        case Phase.PENDING:
            return _pending(state, verdict, now_s)
        case Phase.SHADOW:
            if signs.spent and verdict is Verdict.INCONCLUSIVE:
                return _shadow_spent(state, now_s)
            return _watched(state, verdict, plan, now_s, "shadow")
        case Phase.STEP:
            name = f"{plan.steps[state.step_index].weight_percent:g} %"
            return _watched(state, verdict, plan, now_s, name)
        case Phase.BAKE:
            return _bake(state, verdict, plan, now_s)
        case Phase.PROMOTED:
            return _promoted(state, verdict, plan, now_s, signs)
        case _:
            assert_never(state.phase)


def order(state: RolloutState, verb: Verb, plan: RolloutPlan, now_s: float) -> Outcome:
    """Return the state after a person's word; what does not fit changes nothing."""
    moving = state.phase in (Phase.PENDING, Phase.SHADOW, Phase.STEP, Phase.BAKE)
    match verb:
        case Verb.PAUSE if moving:
            held = replace(state, phase=Phase.PAUSED, paused_from=state.phase, entered_s=now_s)
            return held, (), "paused by order"
        case Verb.RESUME if state.phase is Phase.PAUSED and state.paused_from is not None:
            return _enter(state, state.paused_from, plan, now_s, "resumed by order")
        case Verb.PROMOTE if moving or state.phase is Phase.PAUSED:
            return _enter(state, Phase.BAKE, plan, now_s, "promoted to the bake by order")
        case Verb.ABORT if moving or state.phase is Phase.PAUSED:
            return _end(state, Phase.ABORTED, now_s, "aborted by order")
        case Verb.UNDO if state.phase is Phase.PROMOTED and state.champion is not None:
            return _undo(state, now_s, "undone by order")
        case Verb.STOP:
            return state, (), "the supervisor is stopped by order"
        case Verb.PAUSE | Verb.RESUME | Verb.PROMOTE | Verb.ABORT | Verb.UNDO:
            return state, (), f"{verb.value} does not fit a rollout that is {state.phase.value}"
        case _:
            assert_never(verb)


def _pending(state: RolloutState, verdict: Verdict, now_s: float) -> Outcome:
    """Let the offline gate open the way."""
    match verdict:
        case Verdict.PASS:
            phase = Phase.BAKE if state.champion is None else Phase.SHADOW
            weight = 100.0 if phase is Phase.BAKE else 0.0
            new = replace(state, phase=phase, entered_s=now_s, requests=0, weight_percent=weight)
            actions = (Action(ActionKind.START_CHALLENGER), Action(ActionKind.SET_WEIGHT, weight))
            return new, actions, "the offline gate passed"
        case Verdict.FAIL | Verdict.ERROR:
            return _end(state, Phase.ABORTED, now_s, f"the offline gate says {verdict.value}")
        case Verdict.INCONCLUSIVE:
            return state, (), "the offline gate lacks evidence"
        case _:
            assert_never(verdict)


def _watched(
    state: RolloutState, verdict: Verdict, plan: RolloutPlan, now_s: float, name: str
) -> Outcome:
    """Judge shadow or a step: both go on after a PASS that has lasted long enough."""
    match verdict:
        case Verdict.FAIL:
            return _end(state, Phase.ROLLED_BACK, now_s, f"a gate failed at {name}")
        case Verdict.ERROR:
            return _error(state, now_s, name)
        case Verdict.PASS if now_s - state.entered_s < plan.step_min_s:
            return state, (), f"{name} passed; waits for step_min_s"
        case Verdict.PASS:
            return _next(state, plan, now_s, f"{name} passed")
        case Verdict.INCONCLUSIVE if state.requests >= plan.step_budget_requests:
            held = replace(state, phase=Phase.PAUSED, paused_from=state.phase, entered_s=now_s)
            return held, (), f"{name}: the budget of {plan.step_budget_requests} requests is spent"
        case Verdict.INCONCLUSIVE:
            return state, (), f"{name} gathers evidence"
        case _:
            assert_never(verdict)


def _shadow_spent(state: RolloutState, now_s: float) -> Outcome:
    """Pause: no image is left to ask, so a resume goes on where users' requests may tell."""
    why = "shadow: its images are all answered and do not decide; resume goes on at the first step"
    held = replace(state, phase=Phase.PAUSED, paused_from=Phase.STEP, step_index=0, entered_s=now_s)
    return held, (), why


def _bake(state: RolloutState, verdict: Verdict, plan: RolloutPlan, now_s: float) -> Outcome:
    """Judge the bake: long enough and well, an alarm, or more patience."""
    match verdict:
        case Verdict.FAIL if state.champion is None:
            return _end(state, Phase.ROLLED_BACK, now_s, "the first release failed in its bake")
        case Verdict.FAIL:
            return _alarm(state, plan, now_s)
        case Verdict.ERROR:
            return _error(state, now_s, "the bake")
        case Verdict.PASS:
            enough = state.requests >= plan.bake_requests
            if now_s - state.entered_s < plan.bake_s or not enough:
                return state, (), "the bake goes on"
            done = replace(state, phase=Phase.PROMOTED, entered_s=now_s, requests=0)
            return done, (Action(ActionKind.MOVE_ALIASES),), "every gate passed, and the bake"
        case Verdict.INCONCLUSIVE:
            return state, (), "the bake gathers evidence"
        case _:
            assert_never(verdict)


def _promoted(
    state: RolloutState, verdict: Verdict, plan: RolloutPlan, now_s: float, signs: Signs
) -> Outcome:
    """Go on watching: take back what fails, and where the plan says so make a new release, once."""
    new, actions, why = state, tuple[Action, ...](), "promoted; the watch goes on"
    if state.paged or signs.alarm:
        why = "promoted; an alarm: a person decides (fettle canary undo)"
    if verdict is Verdict.FAIL and state.champion is not None:
        new, actions, why = _undo(state, now_s, "a gate failed after promotion")
    elif signs.alarm and not state.paged:
        new, actions = replace(state, paged=True), (Action(ActionKind.PAGE),)
    if signs.stale and plan.on_drift == "rerun" and not state.ran_again:
        again = (*actions, Action(ActionKind.RUN_AGAIN))
        return replace(new, ran_again=True), again, f"{why}; the release flow runs again"
    return new, actions, why


def _alarm(state: RolloutState, plan: RolloutPlan, now_s: float) -> Outcome:
    """Go back to the last step with a champion beside; a second time, wait there for a person."""
    last = len(plan.steps) - 1
    back = replace(state, step_index=last, alarms=state.alarms + 1)
    new, actions, why = _enter(
        back, Phase.STEP, plan, now_s, "alarm in the bake: compare once more"
    )
    if state.alarms == 0:
        return new, actions, why
    held = replace(new, phase=Phase.PAUSED, paused_from=Phase.STEP)
    return held, actions, "a second alarm in the bake: a person decides"


def _paused(state: RolloutState, verdict: Verdict, now_s: float) -> Outcome:
    """Roll back a paused rollout that harms, and keep from users what nobody can judge."""
    if verdict is Verdict.FAIL and state.weight_percent > 0 and state.champion is not None:
        return _end(state, Phase.ROLLED_BACK, now_s, "a gate failed while paused")
    if verdict is Verdict.ERROR and state.weight_percent > 0 and state.champion is not None:
        held = replace(state, weight_percent=0.0)
        why = "the analysis failed while paused: weight 0"
        return held, (Action(ActionKind.SET_WEIGHT, 0.0),), why
    return state, (), STILL_PAUSED


def _error(state: RolloutState, now_s: float, name: str) -> Outcome:
    """Take the challenger off the traffic: what is not judged must not serve."""
    if state.champion is None:
        return state, (), f"the analysis failed at {name}; there is no other release to serve"
    held = replace(
        state, phase=Phase.PAUSED, paused_from=state.phase, entered_s=now_s, weight_percent=0.0
    )
    return held, (Action(ActionKind.SET_WEIGHT, 0.0),), f"the analysis failed at {name}: weight 0"


def _next(state: RolloutState, plan: RolloutPlan, now_s: float, why: str) -> Outcome:
    """Enter the step after this one, or the bake."""
    following = 0 if state.phase is Phase.SHADOW else state.step_index + 1
    if following == len(plan.steps):
        return _enter(state, Phase.BAKE, plan, now_s, why)
    return _enter(replace(state, step_index=following), Phase.STEP, plan, now_s, why)


def _enter(state: RolloutState, phase: Phase, plan: RolloutPlan, now_s: float, why: str) -> Outcome:
    """Begin a phase at its weight."""
    weights = {Phase.STEP: plan.steps[state.step_index].weight_percent, Phase.BAKE: 100.0}
    weight = weights.get(phase, 0.0)
    new = replace(
        state, phase=phase, weight_percent=weight, entered_s=now_s, requests=0, paused_from=None
    )
    first = state.phase in (Phase.PENDING, Phase.PAUSED) and phase is not Phase.PENDING
    start = (Action(ActionKind.START_CHALLENGER),) if first else ()
    return new, (*start, Action(ActionKind.SET_WEIGHT, weight)), why


def _end(state: RolloutState, phase: Phase, now_s: float, why: str) -> Outcome:
    """Send all traffic to the champion and stop the challenger, for good."""
    new = replace(state, phase=phase, weight_percent=0.0, entered_s=now_s, paused_from=None)
    return new, (Action(ActionKind.SET_WEIGHT, 0.0), Action(ActionKind.STOP_CHALLENGER)), why


def _undo(state: RolloutState, now_s: float, why: str) -> Outcome:
    """Take a promotion back: traffic first, then the names."""
    new, actions, why = _end(state, Phase.ROLLED_BACK, now_s, why)
    return new, (*actions, Action(ActionKind.RESTORE_ALIASES)), why
