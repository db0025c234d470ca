"""A process is known by its number and birth; one that nobody waits for is dead all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fettle.adapters import process_identity
from fettle.adapters.process_identity import ProcessIdentity

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")


@pytest.fixture
def orphan() -> Iterator[int]:
    """The number of a process whose parent never waits for it."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    yield int(parent.stdout.readline())
    parent.kill()
    parent.communicate()


def zombie(pid: int) -> psutil.Process:
    """Kill a process, and wait until nothing but its entry is left."""
    found = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    while found.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    return found


def test_a_zombie_is_dead(orphan: int, tmp_path: Path) -> None:
    known = process_identity.of(orphan)
    process_identity.write(tmp_path / "pid.json", known)
    assert process_identity.read(tmp_path / "pid.json") == known
    zombie(orphan)
    assert not known.alive()
    assert process_identity.read(tmp_path / "pid.json") is None
    assert not known.end(timeout_s=5)


def test_nobody_waits_long_for_a_zombie(orphan: int) -> None:
    found = zombie(orphan)
    began = time.monotonic()
    assert process_identity.wait_ended([found], timeout_s=30) == []
    assert time.monotonic() - began < 5


def test_a_process_that_does_not_end_in_time_is_returned(orphan: int) -> None:
    found = psutil.Process(orphan)
    assert process_identity.wait_ended([found], timeout_s=0.1) == [found]


def test_a_birth_is_counted_on_a_clock_that_no_step_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    me = process_identity.me()
    age_s = me.age_s()
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall + 3600)  # what psutil and we would count from
    assert me == process_identity.me()
    assert me.alive()
    assert 0 <= me.age_s() - age_s < 60
    assert me.age_s() < 24 * 3600  # of this test's process


def test_a_process_of_another_boot_with_the_same_number_is_a_stranger() -> None:
    me = process_identity.me()
    assert not ProcessIdentity(me.pid, me.born + 1).alive()
    assert not ProcessIdentity(me.pid, me.born - 0.01).alive()


def test_what_an_earlier_version_noted_is_still_found(tmp_path: Path) -> None:
    born = psutil.Process().create_time()  # seconds since 1970
    (tmp_path / "pid.json").write_text(json.dumps({"pid": os.getpid(), "born": born}))
    found = process_identity.read(tmp_path / "pid.json")
    assert found == ProcessIdentity(os.getpid(), born)
    assert abs(found.age_s() - process_identity.me().age_s()) < 2
    assert not ProcessIdentity(os.getpid(), born - 60).alive()
