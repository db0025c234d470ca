"""Actuator: do what was decided to traffic, servers, names. Every action is idempotent.

The routes are a function of what serves and where the rollout stands, so a controller that was
killed brings the world in step by doing it again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fettle import manifest
from fettle.adapters import process_identity
from fettle.errors import FettleError
from fettle.json_values import read_object
from fettle.rollout.promotion.rollout_state import FINAL, Phase, RolloutState
from fettle.rollout.router.access_log import Arm
from fettle.rollout.router.model_servers import READY_S, ModelServers
from fettle.rollout.router.nginx_config import Routes
from fettle.rollout.router.nginx_process import Nginx
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState
from fettle.rollout.supervisor.verified_copy import VerifiedCopies

SAY = logging.getLogger("fettle.rollout.supervisor")
WITH_CHALLENGER = (Phase.SHADOW, Phase.STEP, Phase.BAKE, Phase.PROMOTED, Phase.PAUSED)
PROJECT_AGAIN_S = 30.0
VERIFY_AGAIN_S = 30.0  # a refused release is looked at again: it may have been built anew


class Actuator:
    """The hands of the controller; `renew` is called while one waits.

    `refused` says of each release why it may not run: its bytes are verified before every start.
    """

    def __init__(
        self, router: Nginx, arms: ModelServers, renew: Callable[[], None], tracking_uri: str
    ) -> None:
        self._router = router
        self._arms = arms
        self._renew = renew
        self._copies = VerifiedCopies(arms.folder)
        self._uri = tracking_uri
        self.refused: dict[str, str] = {}
        self._verify_next: dict[str, float] = {}
        self._projecting: subprocess.Popen[str] | None = None
        self._projected = b""
        self._project_next = 0.0

    def bring_up(self, release: PinnedRelease) -> bool:
        """Start a release and wait until it answers an inference; False when it does not.

        One that is found dying (it was killed a moment ago) is started once more.
        """
        if not self._start(release, again_at_once=True):
            return False
        started_again = False
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self._arms.ready(release.release):
                return True
            if self._arms.find(release.release) is None:
                if started_again:
                    break
                started_again = True
                if not self._start(release, again_at_once=True):
                    return False
            self._renew()
            time.sleep(0.1)
        SAY.warning("not_ready release=%s why=%r", release.release, self._words(release))
        return False

    def _start(self, release: PinnedRelease, *, again_at_once: bool = False) -> bool:
        """Start a release unless it runs, its bytes verified right before; False when refused.

        A refusal is looked at again every VERIFY_AGAIN_S, or now with `again_at_once`.
        """
        name = release.release
        if self._arms.find(name) is None:
            if not again_at_once and time.monotonic() < self._verify_next.get(name, 0.0):
                return False
            try:
                self._arms.start(name, self._copies.prepare(release))
            except FettleError as err:
                self._refuse(name, str(err))
                self._verify_next[name] = time.monotonic() + VERIFY_AGAIN_S
                return False
        self.refused.pop(name, None)
        return True

    def _refuse(self, name: str, why: str) -> None:
        if self.refused.get(name) != why:
            SAY.error("refused release=%s why=%r", name, why)
        self.refused[name] = why

    def end_changed(self, release: PinnedRelease) -> None:
        """End a release whose own folder was changed while it runs: a worker might read it."""
        if self._arms.find(release.release) is None:
            return
        if (why := self._copies.why_changed(release)) is not None:
            self._refuse(release.release, why)
            self._arms.kill(release.release)

    def _words(self, release: PinnedRelease) -> str:
        return self._arms.last_words(release.release)

    def keep_up(self, release: PinnedRelease) -> bool:
        """Start a release again if its server is gone, on its old port if that is still free.

        Returns whether it did.
        """
        if self._arms.find(release.release) is not None:
            return False
        if release.release not in self.refused:
            SAY.warning("restart release=%s why=%r", release.release, self._words(release))
        return self._start(release)

    def take_down(self, release: PinnedRelease) -> None:
        """Let a release answer what it began, then end it; returns at once."""
        threading.Thread(target=self._arms.stop, args=(release.release,), daemon=True).start()

    def stop_challenger(self) -> None:
        """Engage the kill switch: from now on no request meets the challenger."""
        self._router.stop_challenger()

    def route(
        self,
        serving: ServingState,
        state: RolloutState | None,
        sticky_key: str | None,
        *,
        judged: bool = True,
    ) -> None:
        """Bring the router in step with what serves and where the rollout stands.

        A kill switch that was engaged stays so until somebody has `judged`.
        """
        routes = self.routes(serving, state, sticky_key)
        if routes is None:
            return
        # a promoted release is met by old workers as the challenger until their last connection
        met = routes.weight_percent > 0 or (state is not None and state.phase is Phase.PROMOTED)
        if not met:
            self._router.stop_challenger()
        self._router.set_routes(routes)
        if met and judged:
            self._router.release_challenger()

    def check_plan(
        self, serving: ServingState, weights: Sequence[float], sticky: str | None
    ) -> None:
        """Render and check the routes of every weight that a plan will ask for.

        Raises UserError when nginx could not take one of them.
        """
        for weight_percent in weights:
            state = RolloutState(
                rollout_id=serving.rollout or "",
                challenger=serving.challenger.release if serving.challenger else "",
                champion=serving.champion.release if serving.champion else None,
                phase=Phase.STEP,
                weight_percent=weight_percent,
            )
            routes = self.routes(serving, state, sticky)
            if routes is not None:
                self._router.check(routes)

    def routes(
        self, serving: ServingState, state: RolloutState | None, sticky_key: str | None
    ) -> Routes | None:
        """Return the routes; None while nothing serves.

        Without a champion the challenger stands in for it: a first release is its own fallback.
        A promoted release takes the champion's place, so that the kill switch does not touch it.
        Without a state (a rollout whose journal is not read) what serving.json says is enough.
        """
        promoted = state.phase is Phase.PROMOTED if state else serving.promoted
        met = promoted or (state is not None and state.phase in WITH_CHALLENGER)
        old = self._port(serving.champion)
        new = self._port(serving.challenger) if met else None
        if promoted:
            old, new, spare, weight = new or old, None, old, 0.0
        else:
            spare, weight = new, state.weight_percent if state and new else 0.0
        # a challenger that meets nobody yet does not stand in for a champion that may not run
        champion = old or (new if weight or serving.champion is None else None)
        if champion is None:
            return None
        return Routes(
            champion=champion,
            challenger=new,
            # only users who would get no answer meet it; nobody does before the first step
            spare=spare if spare != champion and (weight or new is None) else None,
            feedback=serving.feedback,
            weight_percent=weight,
            sticky=sticky_key,
            salt=serving.rollout or "",
        )

    def arms_by_address(self, serving: ServingState) -> Mapping[str, Arm]:
        """Say which arm the router's log means by an address."""
        names: dict[str, Arm] = {}
        for arm, release in (("champion", serving.champion), ("challenger", serving.challenger)):
            port = self._port(release)
            if port is not None:
                names[f"127.0.0.1:{port}"] = "champion" if arm == "champion" else "challenger"
        return names

    def ports(self, serving: ServingState) -> tuple[int, int]:
        """Return the ports of champion and challenger, 0 for one that never ran."""
        return self._port(serving.champion) or 0, self._port(serving.challenger) or 0

    def _port(self, release: PinnedRelease | None) -> int | None:
        known = self._arms.known(release.release) if release is not None else None
        if known is None or (release is not None and release.release in self.refused):
            return None  # nothing runs there, and a stranger may listen by now
        return known.port

    def project(self, wanted: Path) -> None:
        """Show the names that `wanted` states in MLflow, in a process of its own, until it works.

        The file is renamed to `*.done` then, unless it was written anew meanwhile: that is told
        too. MLflow may be down for as long as it likes.
        """
        if self._projecting is not None:
            if (code := self._projecting.poll()) is None:
                return
            said = self._projecting.communicate()[0].strip()
            self._projecting = None
            if code == 0:
                SAY.info("aliases %s", said)
                if wanted.read_bytes() == self._projected:
                    wanted.rename(wanted.with_suffix(".done"))
            else:
                SAY.warning("aliases_failed why=%r", said.splitlines()[-1:] or code)
                self._project_next = time.monotonic() + PROJECT_AGAIN_S
            return
        if wanted.is_file() and time.monotonic() >= self._project_next:
            command = [
                sys.executable,
                "-P",
                "-m",
                "fettle.adapters.mlflow_aliases",
                str(wanted),
            ]
            self._projected = wanted.read_bytes()
            self._projecting = subprocess.Popen(
                command,
                # not by the command line, which everybody may read: it may hold a token
                env={**os.environ, "FETTLE_REGISTRY_URI": self._uri},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )


def run_again(folder: Path, command: Sequence[str], *, cwd: Path) -> None:
    """Start the release flow on its own, once a rollout; rerun.log in `folder` has its words."""
    note = folder / "rerun.json"
    if not note.exists():
        process_identity.write(
            note, process_identity.spawn(list(command), folder / "rerun.log", cwd=cwd)
        )
        SAY.info("run_again log=%s", folder / "rerun.log")


def want_aliases(path: Path, serving: ServingState, state: RolloutState, reason: str) -> None:
    """Write the names that MLflow shall show for a rollout as it stands, unless it shows them."""
    promoted = state.phase is Phase.PROMOTED
    undone = state.phase is Phase.ROLLED_BACK
    champion = serving.champion.release if serving.champion else None
    challenger = serving.challenger.release if serving.challenger else None
    aliases: dict[str, str | None] = {}
    if promoted:
        aliases = {"champion": challenger, "previous_champion": champion}
    elif undone and champion is not None:
        aliases = {"champion": champion}
    elif state.phase not in FINAL:
        aliases = {"challenger": challenger}
    named = serving.challenger or serving.champion
    doc: dict[str, object] = {
        "model": named.tag.partition(":")[0] if named else "",
        "aliases": aliases,
        "tags": {
            challenger: {
                "canary": state.phase.value,
                "canary_rollout": state.rollout_id,
                "canary_reason": reason,
            }
        },
    }
    if promoted or state.over:
        doc["over"] = challenger
    done = path.with_suffix(".done")
    if path.exists() or not done.is_file() or read_object(done) != doc:
        manifest.write_json(path, doc)
