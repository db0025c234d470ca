"""Controller (reconciler loop): at every tick observe, decide, write down, act.

    orders ──▶ ┌────────────┐ ──▶ journal ──▶ router, releases, aliases
    log    ──▶ │ watch.tick │
    labels ──▶ └────────────┘ ──▶ status.json

`python -m fettle.rollout.supervisor.controller_process ROOT` runs it, one a project. Killed at any
point it reads serving.json, serves what that names, reads the journal, and does the same again.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from fettle import project as projects
from fettle.errors import UserError
from fettle.rollout.promotion.rollout_state import Action, ActionKind, RolloutState, Verb, is_over
from fettle.rollout.router import access_log, model_servers
from fettle.rollout.supervisor import (
    actuator,
    fault_backoff,
    order_queue,
    rollout_observer,
    service_upkeep,
    start_order,
    unreadable_rollout,
)
from fettle.rollout.supervisor.late_labels import FeedbackRoute
from fettle.rollout.supervisor.rollout_observer import RolloutObserver
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout
from fettle.rollout.supervisor.status_document import RolloutStatus
from fettle.serving import api_key_file

SAY = logging.getLogger("fettle.rollout.supervisor")
TICK_S = 0.2  # a decision follows its evidence by this much; the goal is 1 s to zero traffic
STATUS_EVERY_S = 0.5
RERUN = (sys.executable, "-P", "-m", "fettle.cli.main", "run")


class Controller:
    """The controller of one project; `alone` without a watchdog, and MLflow is told nothing.

    `command` says how a release is served, `rerun` how a new one is made.
    """

    def __init__(
        self,
        project: projects.Project,
        place: StateLayout,
        serving: ServingState,
        *,
        command: model_servers.Command = model_servers.serve,
        alone: bool = False,
        rerun: Sequence[str] = RERUN,
    ) -> None:
        key = api_key_file.read(os.environ)
        self._project, self._place, self._key = project, place, key
        self.serving = serving
        self._router = service_upkeep.router(place, serving, key)
        self._arms = model_servers.ModelServers(place.arms, os.environ, key=key, command=command)
        self._alone, self._rerun = alone, rerun
        self._actuator = actuator.Actuator(
            self._router, self._arms, self._waits, project.registry_uri
        )
        self._upkeep = service_upkeep.ServiceUpkeep(
            place, self._router, self._actuator, self._route, root=None if alone else project.root
        )
        self._feedback = FeedbackRoute(serving.feedback, key, self._upkeep.metrics(serving))
        self._observer: RolloutObserver | None = None
        self._unread = ""  # why the rollout is not watched
        self._judged = False  # whether a whole tick was done
        self._next_status = 0.0

    def start(self) -> None:
        """Serve first, then bring the world in step with what was decided before."""
        for release in service_upkeep.serving_releases(self.serving, ()):
            self._actuator.bring_up(release)
        for release in service_upkeep.serving_releases(self.serving, self._actuator.refused)[1:]:
            self._actuator.bring_up(release)  # the one before, where what serves was tampered with
        if self._router.pid is None:
            self._upkeep.route()
        self._read_rollout()
        for release in service_upkeep.needed_releases(
            self.serving, self._state(), self._actuator.refused
        ):
            self._actuator.bring_up(release)
        self._upkeep.route()
        if self._observer is not None:
            self._run_again()
            self._note_state()
            self._want_aliases()  # a kill may have come between the journal and this
            count, why = fault_backoff.recent_faults(self._place.folder)
            if count >= fault_backoff.FAULTS_MAX:
                self._act(self._observer.fail(f"the controller failed {count} times: {why}"))
                self._observer.done()
                self._observer.write_status()

    def tick(self) -> None:
        """Do one round, and renew the lease after the whole of it: only then all was judged."""
        late = self._place.lease_age_s() > self.serving.lease_s
        order_queue.obey_pending(self._place, self.obey)
        self._upkeep.look(self.serving, self._state(), self._unread)
        now = time.monotonic()
        if self._observer is not None:
            challenger = self.serving.challenger
            refused = self._actuator.refused.get(challenger.release) if challenger else None
            actions = self._observer.tick(
                self._actuator.arms_by_address(self.serving), error=refused
            )
            self._act(actions)
            self._observer.done()
            if not self._alone:
                self._actuator.project(self._observer.folder / "aliases.json")
            if now >= self._next_status or actions:
                self._next_status = now + STATUS_EVERY_S
                self._observer.write_status()
        first, self._judged = not self._judged, True
        if late or first or self._router.challenger_stopped:
            self._upkeep.route()  # takes back a kill switch that was engaged while nobody judged
        self._upkeep.renew_lease(self.serving.lease_s)

    def fail(self, err: BaseException) -> None:
        """Send everybody to the champion, and say why nobody judges any more."""
        why = fault_backoff.words(err)
        with suppress(OSError):
            self._actuator.stop_challenger()
        with suppress(OSError):
            fault_backoff.record_fault(self._place.folder, why)
        with suppress(OSError):
            self._upkeep.tell(self.serving, self._unread)

    @property
    def behind(self) -> bool:
        """Whether more has come in than the last tick took."""
        return self._observer is not None and self._observer.behind

    def close(self) -> None:
        """Stop what runs in this process; the router and the releases go on serving."""
        if self._observer is not None:
            self._observer.close()
        self._feedback.close()

    def status(self) -> RolloutStatus:
        """Return what status.json holds."""
        if self._observer is None and self._unread and self.serving.state is None:
            return unreadable_rollout.status(self.serving, self._unread)
        return self._observer.status() if self._observer else {}

    def challenger_requests(self) -> int:
        """Return how many requests the challenger was drawn for since the rollout began."""
        return self._observer.challenger_requests if self._observer else 0

    def kill(self, release: str) -> None:
        """Kill a release with its workers, as a rehearsal wants."""
        self._arms.kill(release)

    def _state(self) -> RolloutState | None:
        """Return where the rollout stands; of one that cannot be read, what keeps a service up."""
        if self._observer is not None:
            return self._observer.state
        return (
            unreadable_rollout.substitute_state(self._place, self.serving) if self._unread else None
        )

    def _route(self) -> None:
        sticky = self._observer.plan.sticky_key if self._observer else None
        self._actuator.route(self.serving, self._state(), sticky, judged=self._judged)

    def obey(self, order: Mapping[str, object]) -> dict[str, object]:
        """Obey one order; raises UserError when it does not fit."""
        if order["verb"] == "start":
            return self._begin(order)
        if order["verb"] == order_queue.FORGET:
            return self._forget()
        verb = Verb(str(order["verb"]))
        if self._observer is None and self._unread:
            return self._put_away(verb)
        if self._observer is None:
            raise UserError(
                f"there is no rollout to {verb.value}", fix="begin one: `fettle canary start`"
            )
        challenger = self.serving.challenger
        if verb in (Verb.RESUME, Verb.PROMOTE) and challenger is not None:
            start_order.verify(challenger)
        actions, reason = self._observer.order(verb, order_queue.ordered_by(order))
        self._act(actions)
        self._observer.done()
        self._observer.write_status()
        return {"state": self._observer.state.phase.value, "reason": reason}

    def _forget(self) -> dict[str, object]:
        """Watch a finished rollout no more; its files stay where they are, unread."""
        watched = None if self._observer is None else self._observer.state
        rollout = start_order.check_forget(self.serving.rollout, watched)
        if watched is None and self.serving.state is None:
            return self._put_away(Verb.ABORT)
        kept = self.serving.challenger if self.serving.promoted else self.serving.champion
        self._leave(self._observer, kept)
        serves = kept.release if kept else "nothing"
        return {"state": "idle", "reason": f"{rollout} is watched no more; {serves} serves"}

    def _put_away(self, verb: Verb) -> dict[str, object]:
        """End a rollout whose journal cannot be read: a person says which release serves."""
        kept, gone = unreadable_rollout.roles(self.serving, verb, self._unread)
        rollout = self.serving.rollout
        if kept is not None:
            self._actuator.bring_up(kept)
        self._unread = ""
        self.serving = replace(
            self.serving, champion=kept, challenger=None, rollout=None, state=None
        )
        self._place.write_serving(self.serving)
        self._route()
        if gone is not None and kept is not None and gone.release != kept.release:
            self._actuator.take_down(gone)
        serves = kept.release if kept else "nothing"
        return {"state": "aborted", "reason": f"{rollout} is put away unread; {serves} serves"}

    def _begin(self, order: Mapping[str, object]) -> dict[str, object]:
        """Begin a rollout: what was promoted before is the champion now."""
        before = self._observer
        start_order.check_free(None if before is None else before.state)
        now = self.serving.challenger if self.serving.promoted else self.serving.champion
        wanted = start_order.read(order, now)
        challenger, champion = wanted.challenger, wanted.champion
        start_order.verify(challenger)
        if not self._actuator.bring_up(challenger):
            why = self._actuator.refused.get(challenger.release)
            why = why or self._arms.last_words(challenger.release)
            raise start_order.unanswered(challenger, why, self._place)
        rollout_id = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{challenger.release[:6]}"
        serving = start_order.begun(wanted, self.serving, rollout_id)
        self._actuator.check_plan(serving, wanted.weights, wanted.plan.sticky_key)
        self._leave(before, champion)
        rollout_observer.create(
            self._place.rollout(rollout_id),
            challenger=challenger,
            champion=champion,
            promote=wanted.promote,
            since=access_log.end_position(self._router.place.log),
            trees=projects.trees(self._project),
            by=order_queue.ordered_by(order),
        )
        self.serving = serving
        self._place.write_serving(self.serving)
        self._watch_again(rollout_id)
        return {"rollout": rollout_id, "challenger": challenger.release}

    def _waits(self) -> None:
        """Renew the lease while a release comes up, unless a challenger is on trial meanwhile."""
        if self.serving.rollout is None or self.serving.state is not None:
            self._place.renew_lease()

    def _leave(self, before: RolloutObserver | None, champion: PinnedRelease | None) -> None:
        """Put the last rollout away: route by the new roles first, then end the old release."""
        if before is not None:
            before.close()
        old, self._observer, self._unread = self.serving.champion, None, ""
        if self.serving.rollout is None:
            return
        self.serving = replace(
            self.serving, champion=champion, challenger=None, rollout=None, state=None
        )
        self._place.write_serving(self.serving)
        self._route()
        if old is not None and champion is not None and old.release != champion.release:
            self._actuator.take_down(old)

    def _read_rollout(self) -> None:
        """Watch the rollout that serving.json names; one that cannot be read stops nothing."""
        rollout = self.serving.rollout
        if rollout is None:
            return
        try:
            self._watch_again(rollout)
        except Exception as err:  # whatever a damaged or foreign journal makes of our code
            SAY.error("rollout_unread rollout=%s why=%r", rollout, str(err))
            self._observer, self._unread = None, f"it cannot be read: {err}"
            if self.serving.state is None:
                self._actuator.stop_challenger()
                folder = self._place.rollout(rollout)
                unreadable_rollout.write_status(folder, self.serving, self._unread)

    def _watch_again(self, rollout_id: str) -> None:
        """Watch a rollout from its journal."""
        self._observer = RolloutObserver(
            self._place.rollout(rollout_id),
            self._router.place.log,
            trees=projects.trees(self._project),
            ports=lambda: self._actuator.ports(self.serving),
            key=self._key,
        )
        self._feedback.attach(self._observer.memory)

    def _act(self, actions: tuple[Action, ...]) -> None:
        if Action(ActionKind.SET_WEIGHT, 0.0) in actions:
            self._actuator.stop_challenger()  # first of all: what follows may take its time
        if actions:
            self._note_state()
        for action in actions:
            SAY.info("act kind=%s weight_percent=%s", action.kind.value, action.weight_percent)
            self._do(action)
        if actions:
            self._want_aliases()

    def _note_state(self) -> None:
        """Say in serving.json how the rollout ended: the next start serves by that alone."""
        if self._observer is None:
            return
        phase = self._observer.state.phase
        state = phase.value if is_over(phase) else None
        if state != self.serving.state:
            self.serving = replace(self.serving, state=state)
            self._place.write_serving(self.serving)

    def _want_aliases(self) -> None:
        if (watched := self._observer) is not None:
            path = watched.folder / "aliases.json"
            actuator.want_aliases(path, self.serving, watched.state, watched.reason)

    def _do(self, action: Action) -> None:
        champion, challenger = self.serving.champion, self.serving.challenger
        match action.kind:
            case ActionKind.START_CHALLENGER if challenger is not None:
                self._actuator.bring_up(challenger)
            case ActionKind.SET_WEIGHT:
                if champion is not None and not self._arms.ready(champion.release):
                    self._actuator.bring_up(champion)  # an undo may find it gone, or dying
                self._route()
            case ActionKind.STOP_CHALLENGER if challenger is not None:
                if champion is not None:
                    self._actuator.take_down(challenger)
            case ActionKind.STOP_CHAMPION if champion is not None:
                self._actuator.take_down(champion)
            case ActionKind.RUN_AGAIN:
                self._run_again()
            case ActionKind.MOVE_ALIASES | ActionKind.RESTORE_ALIASES:
                self._route()  # a promoted release takes the champion's place; names: see _act

    def _run_again(self) -> None:
        """Begin the release flow where the rollout says so and it was not begun before a kill."""
        if self._observer is not None and self._observer.state.ran_again:
            actuator.run_again(self._observer.folder, self._rerun, cwd=self._project.root)
