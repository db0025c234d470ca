"""Be the controller: at every tick observe, decide, write down, act.

    orders ──▶ ┌────────────┐ ──▶ journal ──▶ router, releases, aliases
    log    ──▶ │ watch.tick │
    labels ──▶ └────────────┘ ──▶ status.json

`python -m fettle.supervisor.controller ROOT` is started by the warden, one a project. Killed at
any point it reads serving.json and the journal, and does the same again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fettle import project as projects
from fettle.adapters import arms, attempts, nginx, process, releases, signing
from fettle.errors import BusyError, FettleError, UserError
from fettle.promotion.rollout import Action, Kind, Phase, Verb
from fettle.serving import apikey
from fettle.supervisor import deeds, watch
from fettle.supervisor import place as places
from fettle.supervisor.feedback import Feedback
from fettle.supervisor.place import Place, Release, Serving

SAY = logging.getLogger("fettle.supervisor")
TICK_S = 0.2  # a decision follows its evidence by this much; the goal is 1 s to zero traffic
STATUS_EVERY_S = 0.5
KEEP_UP_EVERY_S = 1.0
RERUN = (sys.executable, "-P", "-m", "fettle.cli.main", "run")
OVER = (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED)


class Controller:
    """The controller of one project; `alone` without a warden, and MLflow is told nothing.

    `command` says how a release is served, `rerun` how a new one is made.
    """

    def __init__(
        self,
        project: projects.Project,
        place: Place,
        serving: Serving,
        *,
        command: arms.Command = arms.serve,
        alone: bool = False,
        rerun: Sequence[str] = RERUN,
    ) -> None:
        key = apikey.read(os.environ)
        self._project, self._place, self._key = project, place, key
        self.serving = serving
        self._router = nginx.Nginx(
            replace(
                nginx.place(
                    place.router, host=serving.host, port=serving.port, control=serving.control
                ),
                certificate=_path(serving.certificate),
                certificate_key=_path(serving.certificate_key),
            )
        )
        self._arms = arms.Arms(place.arms, os.environ, key=key, command=command)
        self._alone, self._rerun = alone, rerun
        self._deeds = deeds.Deeds(self._router, self._arms, place.renew_lease, project.tracking_uri)
        self._feedback = Feedback(serving.feedback, key)
        self._watch: watch.Watch | None = None
        self._warned = ""
        self._next_status = self._next_keep_up = 0.0

    def start(self) -> None:
        """Bring the world in step with what was decided before."""
        self._place.renew_lease()
        if self.serving.rollout is not None:
            self._watch_again(self.serving.rollout)
            self._run_again()
        for release in self._needed():
            self._deeds.bring_up(release)
        self._route()
        self._want_aliases()  # a kill may have come between the journal and this

    def tick(self) -> None:
        """Do one round."""
        late = self._place.lease_age_s() > self.serving.lease_s
        self._place.renew_lease()
        if late:
            self._route()  # the warden has thrown the stop switch meanwhile
        self._obey()
        now = time.monotonic()
        if now >= self._next_keep_up:
            self._next_keep_up = now + KEEP_UP_EVERY_S
            again = [self._deeds.keep_up(release) for release in self._kept_up()]
            if any(again):
                self._route()
            if not self._alone:
                self._keep_warden()
            self._router.rotate()
        if self._watch is not None:
            actions = self._watch.tick(self._deeds.arms_by_address(self.serving))
            self._act(actions)
            self._watch.done()
            if not self._alone:
                self._deeds.project(self._watch.folder / "aliases.json")
            if now >= self._next_status or actions:
                self._next_status = now + STATUS_EVERY_S
                self._watch.write_status()

    @property
    def behind(self) -> bool:
        """Whether more has come in than the last tick took."""
        return self._watch is not None and self._watch.behind

    def close(self) -> None:
        """Stop what runs in this process; the router and the releases go on serving."""
        if self._watch is not None:
            self._watch.close()
        self._feedback.close()

    def status(self) -> dict[str, Any]:  # Any: JSON
        """Return what status.json holds."""
        return self._watch.status() if self._watch else {}

    def challenger_requests(self) -> int:
        """Return how many requests the challenger was drawn for since the rollout began."""
        return self._watch.challenger_requests if self._watch else 0

    def kill(self, release: str) -> None:
        """Kill a release with its workers, as a rehearsal wants."""
        self._arms.kill(release)

    def _needed(self) -> list[Release]:
        """List the releases that must answer now."""
        challenger = self.serving.challenger
        phase = self._watch.state.phase if self._watch else None
        wanted = phase in deeds.WITH_CHALLENGER and challenger is not None
        found = [self.serving.champion, challenger if wanted else None]
        return [release for release in found if release is not None]

    def _kept_up(self) -> list[Release]:
        """List the releases to start again when they die.

        A challenger on trial is not: its death is evidence. One that serves everybody is, and
        then the champion is only a spare.
        """
        if self._watch is None or self._watch.state.weight_percent != 100:
            return [self.serving.champion] if self.serving.champion else []
        return [self.serving.challenger] if self.serving.challenger else []

    def _keep_warden(self) -> None:
        if process.read(self._place.warden) is None:
            command = [
                sys.executable,
                "-P",
                "-m",
                "fettle.supervisor.warden",
                str(self._project.root),
            ]
            log = self._place.folder / "warden.log"
            process.spawn(command, log, cwd=self._project.root)

    def _route(self) -> None:
        state = self._watch.state if self._watch else None
        sticky = self._watch.plan.sticky_key if self._watch else None
        self._deeds.route(self.serving, state, sticky)

    def _obey(self) -> None:
        for name, order in places.orders(self._place):
            try:
                answer = self.obey(order)
            except FettleError as err:
                answer = {"error": str(err), "kind": err.kind}
            places.obeyed(self._place, name, answer)

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
        """Obey one order; raises UserError when it does not fit."""
        if order["verb"] == "start":
            return self._begin(order)
        if self._watch is None:
            raise UserError(
                f"there is no rollout to {order['verb']}", fix="begin one: `fettle canary start`"
            )
        actions, reason = self._watch.order(Verb(order["verb"]))
        self._act(actions)
        self._watch.done()
        self._watch.write_status()
        return {"state": self._watch.state.phase.value, "reason": reason}

    def _begin(self, order: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
        """Begin a rollout: what was promoted before is the champion now."""
        before = self._watch
        if before is not None and before.state.phase not in OVER:
            raise BusyError(
                "a rollout is under way already",
                got=f"{before.state.rollout_id}, {before.state.phase.value}",
                rule="one rollout at a time",
                fix="wait for it, or `fettle canary abort`",
            )
        challenger = Release.of(order["challenger"])
        champion = self._champion_now()
        if champion is None and order.get("champion"):
            champion = Release.of(order["champion"])
        if champion is not None and champion.release == challenger.release:
            raise UserError(
                "the challenger is the champion",
                got=challenger.release,
                rule="a rollout compares two releases",
                fix="make another release with `fettle run`, or name one with --release",
            )
        folder = Path(challenger.folder)
        releases.verify_named(folder)
        signing.verify(folder, signing.of_release(folder), os.environ)
        if not self._deeds.bring_up(challenger):
            raise UserError(
                f"the challenger {challenger.release} does not answer",
                got=self._arms.last_words(challenger.release),
                rule="it must answer an inference before a rollout begins",
                fix=f"read {self._place.arms / challenger.release / 'server.log'}",
            )
        self._leave(before, champion)
        rollout_id = time.strftime("%Y%m%d-%H%M%S", time.gmtime()) + f"-{challenger.release[:6]}"
        watch.create(
            self._place.rollout(rollout_id),
            challenger=challenger,
            champion=champion,
            promote=order["plan"],
            since=attempts.end(self._router.place.log),
            trees=self._trees(),
        )
        self.serving = replace(
            self.serving,
            champion=champion,
            challenger=challenger,
            rollout=rollout_id,
            lease_s=float(order["plan"]["lease_s"]),
        )
        self._place.write_serving(self.serving)
        self._watch_again(rollout_id)
        return {"rollout": rollout_id, "challenger": challenger.release}

    def _trees(self) -> list[Path]:
        return [self._project.tree, *sorted(self._project.state.glob("ws/*"))]

    def _champion_now(self) -> Release | None:
        promoted = self._watch is not None and self._watch.state.phase is Phase.PROMOTED
        return self.serving.challenger if promoted else self.serving.champion

    def _leave(self, before: watch.Watch | None, champion: Release | None) -> None:
        """Put the last rollout away: route by the new roles first, then end the old release."""
        if before is None:
            return
        before.close()
        old, self._watch = self.serving.champion, None
        self.serving = replace(self.serving, champion=champion, challenger=None, rollout=None)
        self._place.write_serving(self.serving)
        self._route()
        if old is not None and champion is not None and old.release != champion.release:
            self._deeds.take_down(old)

    def _watch_again(self, rollout_id: str) -> None:
        """Watch a rollout from its journal."""
        self._watch = watch.Watch(
            self._place.rollout(rollout_id),
            self._router.place.log,
            trees=self._trees(),
            ports=lambda: self._deeds.ports(self.serving),
            key=self._key,
        )
        self._feedback.attach(self._watch.memory)

    def _act(self, actions: tuple[Action, ...]) -> None:
        if Action(Kind.SET_WEIGHT, 0.0) in actions:
            self._deeds.stop_challenger()  # first of all: what follows may take its time
        for action in actions:
            SAY.info("act kind=%s weight_percent=%s", action.kind.value, action.weight_percent)
            self._do(action)
        if actions:
            self._want_aliases()

    def _want_aliases(self) -> None:
        if (watched := self._watch) is not None:
            path = watched.folder / "aliases.json"
            deeds.want_aliases(path, self.serving, watched.state, watched.reason)

    def _do(self, action: Action) -> None:
        champion, challenger = self.serving.champion, self.serving.challenger
        match action.kind:
            case Kind.START_CHALLENGER if challenger is not None:
                self._deeds.bring_up(challenger)
            case Kind.SET_WEIGHT:
                if champion is not None and not self._arms.ready(champion.release):
                    self._deeds.bring_up(champion)  # an undo may find it gone, or dying
                self._route()
            case Kind.STOP_CHALLENGER if challenger is not None:
                if champion is not None:
                    self._deeds.take_down(challenger)
            case Kind.STOP_CHAMPION if champion is not None:
                self._deeds.take_down(champion)
            case Kind.RUN_AGAIN:
                self._run_again()
            case Kind.MOVE_ALIASES | Kind.RESTORE_ALIASES:
                self._route()  # a promoted release takes the champion's place; names: see _act
            case _:  # there is no such release
                return

    def _run_again(self) -> None:
        """Begin the release flow where the rollout says so and it was not begun before a kill."""
        if self._watch is not None and self._watch.state.ran_again:
            deeds.run_again(self._watch.folder, self._rerun, cwd=self._project.root)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def main() -> None:
    """Run until SIGTERM; exit 1 with one line in the log when it cannot go on."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    project = projects.find(Path(sys.argv[1]))
    os.environ.update(projects.environment(project))
    place = Place(project.state / "canary")
    lock = (place.folder / "controller.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # another controller runs already
    process.write(place.controller, process.me())
    serving = place.serving()
    if serving is None:
        SAY.error("nothing_to_serve file=%s", place.folder / "serving.json")
        sys.exit(1)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stopped.append(got))
    controller = Controller(project, place, serving)
    controller.start()
    while not stopped:
        controller.tick()
        if not controller.behind:
            time.sleep(TICK_S)
    controller.close()


if __name__ == "__main__":
    main()
