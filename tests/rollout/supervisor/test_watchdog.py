from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fettle.adapters import process_identity
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor import watchdog
from fettle.rollout.supervisor.state_layout import ServingState, StateLayout
from fettle.rollout.supervisor.watchdog import Watchdog

# a controller that renews its lease and does nothing else
STAND_IN = (
    "import pathlib, sys, time\nwhile True: pathlib.Path(sys.argv[1]).touch(); time.sleep(.02)"
)


class Post:
    """A watchdog over a stand-in of the controller, with a lease of 1.5 s."""

    def __init__(self, folder: Path) -> None:
        self.place = StateLayout(folder)
        (folder / "router").mkdir()
        (folder / "router" / nginx_process.KILL_SWITCH).write_text("stop-r1")
        self.place.write_serving(replace(ServingState("127.0.0.1", 1, 2, 3), lease_s=1.5))
        command = [sys.executable, "-c", STAND_IN, str(self.place.lease)]
        self.watchdog = Watchdog(self.place, command, cwd=folder)

    @property
    def stopped(self) -> bool:
        return (self.place.router / "stop-r1").exists()

    def controller(self) -> process_identity.ProcessIdentity:
        """The controller, once it holds a fresh lease."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.watchdog.tick()
            known = process_identity.read(self.place.controller)
            if known is not None and self.place.lease_age_s() < 0.2:
                return known
            time.sleep(0.02)
        raise AssertionError("no controller")

    def tick_until_stopped(self) -> None:
        deadline = time.monotonic() + 20
        while not self.stopped and time.monotonic() < deadline:
            self.watchdog.tick()
            time.sleep(0.02)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    if (known := process_identity.read(made.place.controller)) is not None:
        known.end(timeout_s=5)


def test_a_killed_controller_is_started_again(post: Post) -> None:
    first = post.controller()
    os.kill(first.pid, signal.SIGKILL)
    while first.alive():
        time.sleep(0.01)
    assert post.controller().pid != first.pid


def test_a_controller_that_hangs_costs_the_challenger_its_traffic(post: Post) -> None:
    known = post.controller()
    assert not post.stopped
    os.kill(known.pid, signal.SIGSTOP)
    post.tick_until_stopped()
    os.kill(known.pid, signal.SIGCONT)
    assert post.stopped
    assert post.controller() == known  # it is not replaced while it lives: one writer a journal


def test_a_controller_that_cannot_start_costs_the_challenger_its_traffic(tmp_path: Path) -> None:
    place = StateLayout(tmp_path)
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / nginx_process.KILL_SWITCH).write_text("stop-r1")
    place.write_serving(replace(ServingState("127.0.0.1", 1, 2, 3), lease_s=0.3))
    watchdog = Watchdog(place, [sys.executable, "-c", "raise SystemExit(1)"], cwd=tmp_path)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not (tmp_path / "router" / "stop-r1").exists():
        watchdog.tick()
        time.sleep(0.02)
    assert (tmp_path / "router" / "stop-r1").exists()


def test_the_third_death_in_a_minute_costs_the_challenger_its_traffic_at_once(post: Post) -> None:
    for death in range(watchdog.DEATHS_MAX):
        known = post.controller()
        assert not post.stopped, death
        os.kill(known.pid, signal.SIGKILL)
        while known.alive():
            time.sleep(0.01)
        post.place.renew_lease()  # so that it is not the lease's age
        post.watchdog.tick()
    assert post.stopped


def test_a_disk_that_takes_no_file_does_not_end_the_watchdog(post: Post) -> None:
    """The log of the controller cannot be opened: a folder stands in for the full disk."""
    log = post.place.folder / "controller.log"
    log.mkdir()
    post.tick_until_stopped()  # the kill switch is engaged, for nobody judges
    assert post.stopped
    log.rmdir()
    assert post.controller().alive()
