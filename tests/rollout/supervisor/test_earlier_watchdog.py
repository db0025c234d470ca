"""A watchdog that an earlier version started is found, not doubled, and cleaned up after."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fettle.adapters import process_identity
from fettle.adapters.process_identity import ProcessIdentity
from fettle.project import Project
from fettle.rollout.supervisor import supervisor_launch, watchdog
from fettle.rollout.supervisor.state_layout import StateLayout

ROOT = Path(__file__).resolve().parents[3]
DEAD = ProcessIdentity(2**22 - 1, 0.0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / ".fettle" / "canary").mkdir(parents=True)
    return Project(tmp_path, tmp_path)


@pytest.fixture
def place(project: Project) -> StateLayout:
    return supervisor_launch.layout_of(project)


@pytest.fixture
def earlier(place: StateLayout) -> Iterator[ProcessIdentity]:
    """A process that stands for the watchdog of an earlier version, with its files."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    known = process_identity.spawn(sleeper, place.folder / "warden.log", cwd=place.folder)
    process_identity.write(place.folder / "warden.json", known)
    (place.folder / "warden.lock").touch()
    yield known
    known.end(timeout_s=5)


def watch(project: Project) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fettle.rollout.supervisor.watchdog", str(project.root)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


def files(place: StateLayout) -> set[str]:
    return {
        path.name for path in place.folder.iterdir() if path.name.startswith(("warden", "watchdog"))
    }


def test_an_earlier_watchdog_that_runs_is_taken_for_the_project_s(
    project: Project, place: StateLayout, earlier: ProcessIdentity
) -> None:
    assert watchdog.running(place) == earlier
    assert supervisor_launch.running(place)
    supervisor_launch.ensure(project)  # starts none beside it
    assert not place.watchdog.exists()


def test_no_watchdog_is_found_where_the_earlier_one_is_dead(place: StateLayout) -> None:
    process_identity.write(place.earlier_watchdog, DEAD)
    assert watchdog.running(place) is None
    assert not supervisor_launch.running(place)


def test_no_second_watchdog_starts_while_an_earlier_one_holds_its_lock(
    project: Project, place: StateLayout
) -> None:
    with (place.folder / "warden.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        child = watch(project)
        try:
            assert child.wait(timeout=30) == 0
        finally:
            child.terminate()
    assert not place.watchdog.exists()
    assert not place.controller.exists()


def test_a_watchdog_writes_the_earlier_pid_file_only_where_one_lies(
    project: Project, place: StateLayout
) -> None:
    """A controller that an earlier version started looks into that file alone."""
    for lies_there in (True, False):
        if lies_there:
            process_identity.write(place.earlier_watchdog, DEAD)
        child = watch(project)
        deadline = time.monotonic() + 30
        while not place.controller.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        found = process_identity.read(place.earlier_watchdog)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 0
        assert (found is not None and found.pid == child.pid) is lies_there
        assert files(place) == {"watchdog.lock"}
        place.controller.unlink()


def test_stop_ends_an_earlier_watchdog_and_deletes_its_files(
    project: Project, place: StateLayout, earlier: ProcessIdentity
) -> None:
    assert supervisor_launch.stop(project)
    assert not earlier.alive()
    assert files(place) == set()
