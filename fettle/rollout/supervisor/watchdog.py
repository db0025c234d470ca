"""Watchdog of the controller: starts it, restarts it, and stops the challenger without it.

The dead man's switch: a controller that is silent for longer than its lease (killed, hanging,
starved) judges nothing, so the challenger gets no request until it is back. This process does
nothing else, so that there is little in it that could fail; the controller in turn starts a new
watchdog when this one is gone. `python -m fettle.rollout.supervisor.watchdog ROOT` is the whole of
it.
"""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path

from fettle.adapters import process_identity
from fettle.errors import FettleError
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor import notification
from fettle.rollout.supervisor.log_rotation import last_line
from fettle.rollout.supervisor.notification import CRASH_LOOP, NotifiedEvent
from fettle.rollout.supervisor.state_layout import LEASE_S, StateLayout

TICK_S = 0.2
AGAIN_S = 0.5  # before the first restart; doubled up to AGAIN_MAX_S while it keeps dying
AGAIN_MAX_S = 10.0
STOP_S = 20.0
RECENT_S = 60.0
DEATHS_MAX = 3  # one may be an accident; from the third in RECENT_S on nobody is trusted to judge
LOG = "watchdog.log"
LOCK = "watchdog.lock"
EARLIER_LOG, EARLIER_LOCK = "warden.log", "warden.lock"  # of versions with earlier_watchdog


class Watchdog:
    """Watches the controller of one project; `command` starts it."""

    def __init__(self, place: StateLayout, command: list[str], *, cwd: Path) -> None:
        self._place = place
        self._command = command
        self._cwd = cwd
        self._again_s = AGAIN_S
        self._next_start = 0.0
        self._renewed = time.monotonic()
        self._lease = _modified(place.lease)
        self._watched = False  # whether a controller was seen alive since the last death
        self._deaths: deque[float] = deque(maxlen=DEATHS_MAX)
        self._looping = False

    def tick(self) -> None:
        """Look once."""
        lease_s = self._lease_s()
        age_s = self._lease_age_s()
        if age_s > lease_s:
            with suppress(OSError):  # a full disk, say: try again, and start the controller
                nginx_process.engage_kill_switch(self._place.router)
        controller = process_identity.read(self._place.controller)
        if controller is None:
            self._count_death()
        if controller is not None:
            self._watched = True
            # the lease may still be that of the one before, which died
            if age_s < controller.age_s():
                self._again_s, self._looping = AGAIN_S, False
        elif time.monotonic() >= self._next_start:
            self._next_start = time.monotonic() + self._again_s
            self._again_s = min(2 * self._again_s, AGAIN_MAX_S)
            with suppress(OSError):  # it writes its own number too; on a full disk neither can
                started = process_identity.spawn(
                    self._command, self._place.folder / "controller.log", cwd=self._cwd
                )
                self._watched = True
                process_identity.write(self._place.controller, started)

    def _count_death(self) -> None:
        """Engage the kill switch at once where the controller dies again and again.

        The lease alone would let each of them leave the challenger its traffic unjudged.
        """
        if not self._watched:
            return
        self._watched = False
        now = time.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == DEATHS_MAX and now - self._deaths[0] < RECENT_S:
            with suppress(OSError):
                nginx_process.engage_kill_switch(self._place.router)
            if not self._looping:
                why = last_line(self._place.folder / "controller.log")
                event = NotifiedEvent(event=CRASH_LOOP, reason=why, time_s=time.time())
                notification.tell(self._place.folder, event)
            self._looping = True

    def _lease_age_s(self) -> float:
        """Return how long nobody has renewed the lease, while this process looked.

        By whether the file's time changes, on a clock that no step of the wall clock moves: a lease
        dated tomorrow would be fresh for a day.
        """
        found = _modified(self._place.lease)
        if found != self._lease:
            self._lease, self._renewed = found, time.monotonic()
        return time.monotonic() - self._renewed

    def _lease_s(self) -> float:
        """Return how long the controller may be silent, also where nobody can read what serves."""
        try:
            serving = self._place.serving()
        except (FettleError, OSError):
            return LEASE_S
        return serving.lease_s if serving else LEASE_S


def _modified(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def running(place: StateLayout) -> process_identity.ProcessIdentity | None:
    """Find the watchdog that runs, one that an earlier version started too."""
    known = process_identity.read(place.watchdog)
    return known or process_identity.read(place.earlier_watchdog)


def forget(place: StateLayout) -> None:
    """Delete the pid files, and what else an earlier version's watchdog left."""
    place.watchdog.unlink(missing_ok=True)
    place.earlier_watchdog.unlink(missing_ok=True)
    for name in (EARLIER_LOG, EARLIER_LOCK):
        (place.folder / name).unlink(missing_ok=True)


def _watch_alone(place: StateLayout, locks: ExitStack) -> bool:
    """Take the lock, an earlier version's too where it lies there; False when another has it."""
    for name in (LOCK, EARLIER_LOCK):
        path = place.folder / name
        if name == LOCK or path.exists():
            lock = locks.enter_context(path.open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
    return True


def main() -> None:
    """Watch until SIGTERM or SIGINT, which also ends the controller."""
    root = Path(sys.argv[1])
    place = StateLayout(root / ".fettle" / "canary")
    place.router.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        if _watch_alone(place, locks):
            _watch(root, place)


def _watch(root: Path, place: StateLayout) -> None:
    process_identity.write(place.watchdog, process_identity.me())
    if place.earlier_watchdog.exists():  # a controller of an earlier version looks there alone
        process_identity.write(place.earlier_watchdog, process_identity.me())
    command = [
        sys.executable,
        "-P",
        "-m",
        "fettle.rollout.supervisor.controller_process",
        str(root),
    ]
    watchdog = Watchdog(place, command, cwd=root)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stopped.append(got))
    me = process_identity.me()
    while not stopped:
        watchdog.tick()
        if process_identity.read(place.watchdog) != me:  # else the controller tries a second one
            with suppress(OSError):
                process_identity.write(place.watchdog, me)
        time.sleep(TICK_S)
    place.watchdog.unlink(missing_ok=True)
    place.earlier_watchdog.unlink(missing_ok=True)
    if (controller := process_identity.read(place.controller)) is not None:
        controller.end(timeout_s=STOP_S)


if __name__ == "__main__":
    main()
