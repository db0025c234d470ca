"""Liveness of what serves: releases, router and watchdog are restarted; problems are reported.

What may die is started again; what is refused or fails is written to problems.json for who watches,
and tried again later. Nothing here decides about a rollout.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import replace
from pathlib import Path

from fettle.adapters import process_identity
from fettle.errors import FettleError
from fettle.rollout.promotion.rollout_state import RolloutState
from fettle.rollout.router import metrics_access, nginx_process, router_key, router_lease
from fettle.rollout.router.nginx_process import Nginx
from fettle.rollout.supervisor import actuator, fault_backoff, log_rotation, watchdog
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout
from fettle.rollout.supervisor.supervisor_metrics import SupervisorMetrics

SAY = logging.getLogger("fettle.rollout.supervisor")
EVERY_S = 1.0
ROTATE_EVERY_S = 60.0
ROUTER_AGAIN_S = 5.0  # a port that a stranger holds costs nginx 2.5 s a try


class ServiceUpkeep:
    """Liveness of one project's service; no `root`, no watchdog. `route` sets the routes."""

    def __init__(
        self,
        place: StateLayout,
        router: Nginx,
        acting: actuator.Actuator,
        route: Callable[[], None],
        *,
        root: Path | None,
    ) -> None:
        self._place, self._router, self._actuator = place, router, acting
        self._set_routes, self._root = route, root
        self._me = process_identity.me()
        self._router_error = ""
        self._told: dict[str, str] | None = None
        self._restarts: Counter[str] = Counter()
        self._next = self._next_router = self._next_rotation = 0.0

    def look(self, serving: ServingState, state: RolloutState | None, unread: str) -> None:
        """Start again what died, once every EVERY_S; `unread` says why a rollout is not watched."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY_S
        for release in (serving.champion, serving.challenger):
            if release is not None:
                self._actuator.end_changed(release)
        kept = restarted_releases(serving, state, self._actuator.refused)
        started = [release for release in kept if self._actuator.keep_up(release)]
        if started:
            self.route()
        for release in started:
            self._restarts["champion" if release == serving.champion else "challenger"] += 1
        if self._router.pid is None and now >= self._next_router:
            SAY.warning("restart router=%s", self._place.router)
            self._next_router = now + ROUTER_AGAIN_S
            self._restarts["router"] += 1
            self.route()
        watcher = watchdog.running(self._place) if self._root is not None else None
        if watcher is not None or self._root is None:
            self._router.watch(watcher.pid if watcher else None)
        if self._root is not None and watcher is None:
            command = [
                sys.executable,
                "-P",
                "-m",
                "fettle.rollout.supervisor.watchdog",
                str(self._root),
            ]
            self._restarts["watchdog"] += 1
            process_identity.spawn(command, self._place.folder / watchdog.LOG, cwd=self._root)
        if self._place.keep_serving(serving):
            SAY.warning("restored file=serving.json")
        if self._root is not None and process_identity.read(self._place.controller) != self._me:
            process_identity.write(self._place.controller, self._me)  # else a second one is tried
        self._router.rotate()
        if now >= self._next_rotation:
            self._next_rotation = now + ROTATE_EVERY_S
            log_rotation.rotate(self._place)
        self.tell(serving, unread)

    def metrics(self, serving: ServingState) -> Callable[[], bytes]:
        """Return what tells Prometheus of the service, and of what was started again."""
        return SupervisorMetrics(self._place, serving, self._restarts).text

    def renew_lease(self, lease_s: float) -> None:
        """Say to the watchdog, and to the router, that all was judged."""
        router_lease.renew(self._place.router, lease_s=lease_s, now_s=time.time())
        self._place.renew_lease()

    def route(self) -> None:
        """Route, and where nginx does not take it go on with what serves; tried again later."""
        try:
            self._set_routes()
            self._router_error = ""
        except FettleError as err:
            SAY.error("router why=%r", str(err))
            self._router_error = str(err)

    def tell(self, serving: ServingState, unread: str) -> None:
        """Write down what cannot be done now, for who watches."""
        found = {f"release {name}": why for name, why in self._actuator.refused.items()}
        if self._router_error:
            found["router"] = self._router_error
        if unread:
            found[f"rollout {serving.rollout}"] = unread
        count, why = fault_backoff.recent_faults(self._place.folder)
        if count:
            found["controller"] = f"it failed {count} times in the last minute: {why}"
        if found != self._told:
            self._told = found
            self._place.write_problems(found)


def router(place: StateLayout, serving: ServingState, api_key: str | None) -> Nginx:
    """Return the router of a project, at the address that serving.json states."""
    config = nginx_process.place(
        place.router, host=serving.host, port=serving.port, control=serving.control
    )
    key_file = router_key.write(config.folder, api_key) if api_key else None
    certificate = Path(serving.certificate) if serving.certificate else None
    key = Path(serving.certificate_key) if serving.certificate_key else None
    tls = replace(config, certificate=certificate, certificate_key=key)
    try:
        near = metrics_access.networks(os.environ)
    except FettleError as err:  # refused in words where serving is begun
        SAY.error("metrics why=%r", str(err))
        near = metrics_access.LOOPBACK
    return Nginx(replace(tls, key_file=key_file, leased=True, metrics_from=near))


def serving_releases(serving: ServingState, refused: Container[str]) -> list[PinnedRelease]:
    """List what serves by serving.json alone; the old release too where the new is refused."""
    new, old = serving.challenger, serving.champion
    found = [one for one in ([new, old] if serving.promoted else [old]) if one is not None]
    return found[: 1 + sum(one.release in refused for one in found)]


def needed_releases(
    serving: ServingState, state: RolloutState | None, refused: Container[str]
) -> list[PinnedRelease]:
    """List the releases that must answer now."""
    wanted = state is not None and state.phase in actuator.WITH_CHALLENGER
    found = [*serving_releases(serving, refused), serving.challenger if wanted else None]
    return [release for release in dict.fromkeys(found) if release is not None]


def restarted_releases(
    serving: ServingState, state: RolloutState | None, refused: Container[str]
) -> list[PinnedRelease]:
    """List the releases to start again when they die.

    A challenger on trial is not: its death is evidence. One that serves everybody is, and then the
    champion is only a spare.
    """
    challenger = serving.challenger
    if challenger is None or state is None or serving.promoted:
        return serving_releases(serving, refused)
    alone = serving.champion is None and state.phase in actuator.WITH_CHALLENGER
    whole = state.weight_percent == 100 and challenger.release not in refused
    return [challenger] if whole or alone else serving_releases(serving, refused)
