"""Decision engine, event-sourced: the same events always give the same decisions, bit for bit.

    Begin ─▶ Engine ─▶ decide(Offline | Observed | Ordered) ─▶ Decision(state, actions, gates, why)

The supervisor makes events of what it sees, asks for the decision, writes both to the journal,
then acts. After a crash it folds the journal again (journal.replay) and goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion import drift, gate_results, verdict_fold
from fettle.rollout.promotion import gates as g
from fettle.rollout.promotion.arm_assignment import Assignment
from fettle.rollout.promotion.champion_history import ChampionHistory, arrays
from fettle.rollout.promotion.gate_thresholds import Thresholds
from fettle.rollout.promotion.gate_verdict import GateResult, Verdict, worst
from fettle.rollout.promotion.gates import Drawn
from fettle.rollout.promotion.request_records import (
    Arm,
    Attempt,
    InputObservation,
    Label,
    Record,
    ShadowPair,
)
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.rollout_state import (
    Action,
    Phase,
    RolloutState,
    Signs,
    Verb,
    order,
    step,
)
from fettle.rollout.promotion.verdict_fold import Code

# 60 MB; a label finds its request among the last 200,000 answered (late_labels.py), so among these
DRAWN_MOST = 250_000


@dataclass(frozen=True, slots=True)
class OrderedBy:
    """Who gave an order, USER@HOST as its command found it, and why; "" where it was not said."""

    who: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """What a rollout starts from; `reference` has the shares of the training data's input bins.

    images: held out for the shadow, None where that is not known. history: of the champion.
    """

    rollout_id: str
    challenger: str
    champion: str | None
    plan: RolloutPlan
    reference: tuple[float, ...] | None = None
    images: int | None = None
    history: ChampionHistory | None = None
    by: OrderedBy = OrderedBy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """The offline gate's results."""

    now_s: float
    results: tuple[GateResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen since the last look, in the order of the log; may be empty.

    `error` says why the analysis itself failed, None where it did not.
    """

    now_s: float
    records: tuple[Record, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """A person's word."""

    now_s: float
    verb: Verb
    by: OrderedBy = OrderedBy()


Event = Offline | Observed | Ordered


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What comes of an event; the actions are to be done after it is journalled."""

    state: RolloutState
    verdict: Verdict | None
    actions: tuple[Action, ...]
    reason: str
    gates: tuple[GateResult, ...]


class Engine:
    """One rollout. Not thread-safe: one controller asks."""

    def __init__(self, begin: Begin) -> None:
        self.begin = begin
        self.plan = begin.plan
        self.bars = Thresholds.of(begin.plan, begin.images)
        self.gates = g.start(history=None if begin.history is None else arrays(begin.history))
        self.drift = (
            drift.start(begin.reference, begin.plan.drift_tolerance) if begin.reference else None
        )
        self.state = RolloutState(
            rollout_id=begin.rollout_id, challenger=begin.challenger, champion=begin.champion
        )
        self._assignment = Assignment()
        self._drawn: dict[str, tuple[bool, float]] = {}  # request id → challenger?, propensity
        self._requests = 0

    def decide(self, event: Event) -> Decision:
        """Take one event and return what comes of it."""
        before = self.state
        error = self._take(event.records, event.error) if isinstance(event, Observed) else None
        match event:
            case Ordered():
                found: tuple[GateResult, ...] = ()
                verdict = None
                self.state, actions, reason = order(before, event.verb, self.plan, event.now_s)
            case Offline() | Observed():
                found = event.results if isinstance(event, Offline) else self._judge(error)
                verdict = self._fold(event, found)
                if isinstance(event, Offline) != (before.phase is Phase.PENDING):
                    verdict = Verdict.INCONCLUSIVE  # the other gate's word: not asked for here
                self.state, actions, reason = step(
                    before,
                    verdict,
                    self.plan,
                    event.now_s,
                    requests=self._requests,
                    signs=self._signs(found),
                )
        self._renew(before)
        return Decision(
            state=self.state, verdict=verdict, actions=actions, reason=reason, gates=found
        )

    def _fold(self, event: Offline | Observed, found: tuple[GateResult, ...]) -> Verdict:
        """Fold the gates by `verdict_fold`, and with them what no array has: errors and drift."""
        phase = self._judged_phase()
        if isinstance(event, Offline) or phase not in verdict_fold.PHASES:
            return worst(one.verdict for one in found)
        at = np.array([verdict_fold.PHASES.index(phase)])
        step_index = np.array([self.state.step_index])
        code = verdict_fold.codes(self.gates, self.bars, self.plan, at, step_index)
        others = (one.verdict for one in found if one.name in ("analysis", "drift"))
        return worst([Code(int(code[0])).verdict(), *others])

    def _judged_phase(self) -> Phase | None:
        state = self.state
        return state.paused_from if state.phase is Phase.PAUSED else state.phase

    def _signs(self, found: tuple[GateResult, ...]) -> Signs:
        return Signs(
            spent=bool(self.gates.shadow.n[0] >= self.bars.images),
            stale=gate_results.stale(found, self.drift),
            alarm=bool(verdict_fold.alarms(self.gates)[0]),
        )

    def _judge(self, error: str | None) -> tuple[GateResult, ...]:
        return gate_results.of(
            self.gates, self.bars, self.plan, self.state, drift=self.drift, error=error
        )

    def _renew(self, before: RolloutState) -> None:
        """Begin the evidence anew where a new step or bake has begun; a pause keeps it.

        A wrong split made the evidence worthless, a spent budget has no room for more: then a
        resume begins anew too. The alpha of such a second try is the person's who asks for it.
        """
        now = self.state
        if now.phase is before.phase and now.step_index == before.step_index:
            return
        self._requests = 0
        worthless = bool(self.gates.split.alarm[0] or g.exhausted(self.gates)[0])
        resumed = before.phase is Phase.PAUSED and worthless
        if resumed or Phase.PAUSED not in (now.phase, before.phase):
            g.renew_step(self.gates, np.array([True]))

    def _take(self, records: tuple[Record, ...], error: str | None) -> str | None:
        """Feed the records to the gates; return what is wrong with them, if anything."""
        for record in records:
            match record:
                case Attempt():
                    if not _plausible(record):
                        error = f"attempt {record.request_id} has no plausible time or weight"
                    elif not record.replay and record.arm is record.assigned:
                        self._attempt(record)
                case ShadowPair():
                    self._pair(record)
                case Label():
                    self._label(record)
                case InputObservation():
                    if self.drift is not None:
                        drift.update(self.drift, record.arm, record.bin_index)
        return error

    def _attempt(self, attempt: Attempt) -> None:
        challenger = attempt.arm is Arm.CHALLENGER
        propensity = self._assignment.propensity(attempt.key_hash, attempt.weight)
        self._assignment.learn(attempt.key_hash, attempt.weight, challenger=challenger)
        self._drawn[attempt.request_id] = (challenger, propensity)
        if len(self._drawn) > DRAWN_MOST:
            del self._drawn[next(iter(self._drawn))]  # the oldest
        self._requests += self.state.phase is not Phase.SHADOW
        seen = Drawn(
            challenger=np.array([challenger]),
            propensity=np.array([propensity]),
            failed=np.array([attempt.failed]),
            refused=np.array([attempt.refused]),
            gone=np.array([attempt.gone]),
            log_ms=np.log([max(attempt.latency_ms, 1e-3)]),
        )
        if self.state.phase in (Phase.BAKE, Phase.PROMOTED):
            if challenger:
                g.take_alone(self.gates, self.plan, self.bars, seen, counts=np.array([True]))
            return
        g.take_request(self.gates, self.plan, self.bars, np.array([self.state.step_index]), seen)

    def _pair(self, pair: ShadowPair) -> None:
        self._requests += self.state.phase is Phase.SHADOW
        known = pair.label is not None
        g.take_pair(
            self.gates,
            self.plan,
            self.bars,
            disagree=np.array([pair.champion != pair.challenger]),
            champion_wrong=np.array([pair.champion != pair.label]) if known else None,
            challenger_wrong=np.array([pair.challenger != pair.label]) if known else None,
        )

    def _label(self, label: Label) -> None:
        """Join a late label to its request; one without a drawn request tells nothing."""
        drawn = self._drawn.pop(label.request_id, None)
        if drawn is not None:
            g.take_label(
                self.gates,
                self.plan,
                self.bars,
                challenger=np.array([drawn[0]]),
                propensity=np.array([drawn[1]]),
                wrong=np.array([not label.correct]),
            )


def _plausible(attempt: Attempt) -> bool:
    return (
        math.isfinite(attempt.latency_ms) and attempt.latency_ms >= 0 and 0 <= attempt.weight <= 1
    )
