"""Rollout observer: reads what came in, asks for the decision, journals it, hands on the actions.

What was seen lies in files that only grow: the router's log, shadow.jsonl, labels.jsonl. The
journal holds every record that was judged, so after a kill it also says how far each was read.

    rollouts/ID/begin.json     where in the router's log the rollout begins; edges of the input bins
    rollouts/ID/journal.jsonl  see fettle/rollout/promotion/decision_journal.py
    rollouts/ID/status.json    for who watches
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from fettle import manifest
from fettle.adapters.boot_clock import SteadyClock
from fettle.rollout.promotion import decision_journal, offline_gate
from fettle.rollout.promotion.decision_engine import (
    Begin,
    Decision,
    Event,
    Observed,
    Offline,
    Ordered,
    OrderedBy,
)
from fettle.rollout.promotion.gate_verdict import GateResult, Verdict
from fettle.rollout.promotion.rollout_plan import RolloutPlan, section_from_json
from fettle.rollout.promotion.rollout_state import STILL_PAUSED, Action, Phase, RolloutState, Verb
from fettle.rollout.router import access_log
from fettle.rollout.supervisor import (
    drift_reference,
    notification,
    release_evidence,
    shadow_traffic,
    traffic_baseline,
)
from fettle.rollout.supervisor.evidence_collector import EvidenceCollector
from fettle.rollout.supervisor.journal_anchor import JournalAnchor
from fettle.rollout.supervisor.late_labels import AnsweredRequests
from fettle.rollout.supervisor.state_layout import PinnedRelease, StateLayout
from fettle.rollout.supervisor.status_document import GateRow, RolloutStatus

# So many times promote.shadow_requests at most: 200 s at the shadow's pace by default.
SHADOW_TIMES = 10
# After a promotion attempts are judged this far on, then only labels: the journal must end.
WATCHED_REQUESTS = 100_000
# A pause may last for days: then its requests are read so seldom, and after so many one in so many
# is judged; at weight 0 none is, for nobody meets the challenger.
PAUSED_EVERY_S = 4.0
PAUSED_REQUESTS = 100_000
PAUSED_ONE_IN = 64


def create(
    folder: Path,
    *,
    challenger: PinnedRelease,
    champion: PinnedRelease | None,
    promote: Mapping[str, object],
    since: int,
    trees: Sequence[Path],
    by: OrderedBy,
) -> None:
    """Begin a rollout: its folder, its journal, the plan and the champion's history within."""
    edges = drift_reference.brightness_edges(trees, Path(challenger.folder))
    plan = RolloutPlan.of(section_from_json(promote))
    most = SHADOW_TIMES * plan.shadow_requests
    images = shadow_traffic.images(trees, Path(challenger.folder), most) if champion else 0
    begin = Begin(
        rollout_id=folder.name,
        challenger=challenger.release,
        champion=champion.release if champion else None,
        plan=plan,
        reference=drift_reference.SHARES if edges else None,
        images=images,
        history=traffic_baseline.history(StateLayout(folder.parents[1])) if champion else None,
        by=by,
    )
    pinned = {"champion": champion, "challenger": challenger}
    manifest.write_json(
        folder / "begin.json",
        {
            "since": since,
            "edges": edges,
            "folders": {arm: one.folder for arm, one in pinned.items() if one is not None},
        },
    )
    decision_journal.DecisionJournal.create(folder / "journal.jsonl", begin)


class RolloutObserver:
    """One rollout, from its journal on."""

    def __init__(
        self,
        folder: Path,
        log: Path,
        *,
        trees: Sequence[Path],
        ports: Callable[[], tuple[int, int]],
        key: str | None,
    ) -> None:
        self.folder = folder
        self._log, self._trees, self._ports, self._key = log, trees, ports, key
        self._clock = SteadyClock(folder / "clock.json")
        begun = json.loads((folder / "begin.json").read_text())
        self._edges: list[float] = begun["edges"]
        self._folders: dict[str, str] = begun["folders"]
        self._release = Path(self._folders["challenger"])
        self._engine, decisions, self._journal = decision_journal.recover(folder / "journal.jsonl")
        self._last: Decision | None = decisions[-1] if decisions else None
        self._reason = "begun"
        for decision in decisions:
            self._reason = why(decision.reason, before=self._reason)
        names = {arm: _classes(Path(release)) for arm, release in self._folders.items()}
        self.memory = AnsweredRequests(names, folder / "labels.jsonl")
        self._collector = EvidenceCollector(
            folder, log, int(begun["since"]), edges=self._edges, memory=self.memory
        )
        self._shadow: shadow_traffic.ShadowTraffic | None = None
        self._paused_next = 0.0  # monotonic
        self._anchor = JournalAnchor(folder.name, folder.parents[1])
        self._moved = True

    @property
    def state(self) -> RolloutState:
        """Where the rollout stands."""
        return self._engine.state

    @property
    def plan(self) -> RolloutPlan:
        """The plan that was pinned at its start."""
        return self._engine.plan

    @property
    def reason(self) -> str:
        """Why it stands there; of a paused rollout, why it was paused."""
        return self._reason

    @property
    def behind(self) -> bool:
        """Whether more has come in than one tick takes."""
        return self._collector.behind

    @property
    def challenger_requests(self) -> int:
        """How many requests the challenger was drawn for since this process watches."""
        return self._collector.challenger_requests

    def tick(
        self, arms: Mapping[str, access_log.Arm], *, error: str | None = None
    ) -> tuple[Action, ...]:
        """Take what came in since the last tick; return what is to be done.

        `error` says why the challenger cannot be judged, None where it can.
        """
        if self.state.over:
            return ()
        now_s = self._clock.now_s()
        if self.state.phase is Phase.PENDING:
            return self._decide(
                Offline(now_s=now_s, results=judge_offline(self._folders, self.plan))
            ).actions
        self._shadowing()
        if self.state.phase is Phase.PAUSED and error is None:
            return self._tick_paused(arms, now_s)
        watched = self.state.phase is Phase.PROMOTED and self.state.requests > WATCHED_REQUESTS
        records = self._collector.collect(arms, log=not watched)
        error = error or self._collector.error
        return self._decide(Observed(now_s=now_s, records=records, error=error)).actions

    def _tick_paused(self, arms: Mapping[str, access_log.Arm], now_s: float) -> tuple[Action, ...]:
        """Judge a rollout that waits for a person, so that days of it fit a disk and a memory."""
        if not self.behind and time.monotonic() < self._paused_next:
            return ()
        self._paused_next = time.monotonic() + min(PAUSED_EVERY_S, self.plan.lease_s / 2)
        one_in = 1 if self.state.requests < PAUSED_REQUESTS else PAUSED_ONE_IN
        met = self.state.weight_percent > 0
        records = self._collector.collect(arms, log=True, one_in=one_in if met else None)
        error = self._collector.error
        return self._decide(Observed(now_s=now_s, records=records, error=error)).actions

    def fail(self, error: str) -> tuple[Action, ...]:
        """Say that nobody can judge, without reading anything; return what is to be done."""
        return self._decide(Observed(now_s=self._clock.now_s(), error=error)).actions

    def order(self, verb: Verb, by: OrderedBy) -> tuple[tuple[Action, ...], str]:
        """Take a person's word; return what is to be done, and what was said to it."""
        if verb is Verb.RESUME:
            self._collector.clear_error()
        decision = self._decide(Ordered(now_s=self._clock.now_s(), verb=verb, by=by))
        return decision.actions, decision.reason

    def done(self) -> None:
        """Seal the journal after the last decision, whose actions are done; tell its anchor."""
        self._journal.seal()
        self._anchor.tell(*self._journal.length_and_seal, at_once=self._moved)
        self._moved = False

    def close(self) -> None:
        """Stop what runs in the background."""
        self.done()
        if self._shadow is not None:
            self._shadow.stop()

    def write_status(self) -> None:
        """Write status.json for who watches, and tell whoever wants to be told."""
        manifest.write_json(self.folder / "status.json", self.status())
        notification.tell_moved(self.folder, self.state, self.reason)

    def status(self) -> RolloutStatus:
        """Return where the rollout stands, as `fettle canary status --json` prints it."""
        gates = self._last.gates if self._last else ()
        state = self.state
        doc: RolloutStatus = {
            "rollout": state.rollout_id,
            "state": state.phase.value,
            "weight_percent": state.weight_percent,
            "champion": state.champion,
            "challenger": state.challenger,
            "reason": self.reason,
            "requests": state.requests,
            "gates": [cast(GateRow, gate.to_dict()) for gate in gates],
            "eta_s": self._eta_s(),
            "skipped": self._collector.skipped,
            "time_s": time.time(),
        }
        return cast(RolloutStatus, _finite(doc))

    def _decide(self, event: Event) -> Decision:
        """Decide, and write it down before anything is done: unless nothing came and nothing moves.

        An empty look that changes nothing leaves the engine as it was, so it may be forgotten.
        """
        before = self._engine.state
        decision = self._engine.decide(event)
        idle = isinstance(event, Observed) and not event.records  # an error again is no news
        if not (idle and decision.state == before and not decision.actions):
            self._journal.write(event, decision)
        self._moved |= isinstance(event, Ordered) or decision.state.phase is not before.phase
        if decision.gates or self._last is None or decision.state.phase is not before.phase:
            self._last = decision
            self._reason = why(decision.reason, before=self._reason)
        return decision

    def _shadowing(self) -> None:
        """Replay held-out requests while the phase asks for them."""
        wanted = self.state.phase is Phase.SHADOW
        if wanted and self._shadow is None:
            self._shadow = shadow_traffic.ShadowTraffic(
                self.folder / "shadow.jsonl",
                shadow_traffic.held_out_requests(self._trees, self._release),
                ports=self._ports,
                key=self._key,
                requests=SHADOW_TIMES * self.plan.shadow_requests,
            )
        elif not wanted and self._shadow is not None:
            self._shadow.stop()
            self._shadow = None

    def _eta_s(self) -> float | None:
        """Return the least time to go by the plan's own waits; None once it is over."""
        state, plan = self.state, self.plan
        left = plan.bake_s
        match state.phase:
            case Phase.SHADOW:
                left += plan.step_min_s * (1 + len(plan.steps))
            case Phase.STEP:
                left += plan.step_min_s * (len(plan.steps) - state.step_index)
            case Phase.BAKE:
                pass
            case _:
                return None
        return max(0.0, left - (self._clock.now_s() - state.entered_s))


def why(reason: str, *, before: str) -> str:
    """Return a decision's reason; the one before it where it only says that nothing moves."""
    return before if reason == STILL_PAUSED else reason


def judge_offline(folders: Mapping[str, str], plan: RolloutPlan) -> tuple[GateResult, ...]:
    """Judge the challenger's evidence bundle, beside the champion's where there is one.

    One that cannot be read are an ERROR: a release folder may be gone, or of another version.
    """
    champion = folders.get("champion")
    try:
        return offline_gate.judge(
            release_evidence.read(Path(folders["challenger"])),
            None if champion is None else release_evidence.read(Path(champion)),
            plan,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        why = f"the papers of a release cannot be read ({err!r})"
        return (GateResult(name="analysis", verdict=Verdict.ERROR, reason=why),)


def _classes(release: Path) -> list[str]:
    """Return a release's class names; none where its folder was deleted, so no label joins it."""
    try:
        return [str(name) for name in json.loads((release / "labels.json").read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _finite(doc: object) -> object:
    """Write what is no number as null: JSON has no infinity."""
    if isinstance(doc, dict):
        return {key: _finite(value) for key, value in doc.items()}
    if isinstance(doc, list | tuple):
        return [_finite(value) for value in doc]
    return None if isinstance(doc, float) and not abs(doc) < float("inf") else doc
