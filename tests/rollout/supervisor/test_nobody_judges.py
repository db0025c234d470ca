"""All who judge are killed, or stopped, at once, and nobody waits for them: a container's worst."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from rehearsed import PLAN, RolloutHarness, Users, wait_for
from tiny_project import ROOT

from fettle.adapters import process_identity
from fettle.rollout.router import nginx_config

pytestmark = [
    pytest.mark.usefixtures("no_init"),
    pytest.mark.flows,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's prctl and /proc"),
]
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
LEASE_S = float(PLAN["lease_s"])
LOOK_S = 2.0


@pytest.fixture
def no_init() -> Iterator[None]:
    """Orphans of this test's processes become its children, which it does not wait for."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, 0)


@pytest.fixture
def judges(harness: RolloutHarness) -> Iterator[list[int]]:
    """A rollout held at 50 %, judged by a real watchdog and its controller: their numbers."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, harness.project.root / name)
    first = harness.start(harness.release(1))
    with Users(harness.serving.port):
        first.obey(harness.order(harness.release(2)))
        harness.tick_until("step")
        first.obey({"verb": "pause"})
    first.close()
    command = [sys.executable, "-P", "-m", "fettle.rollout.supervisor.watchdog"]
    child = subprocess.Popen([*command, str(harness.project.root)])
    wait_for(lambda: harness.place.controller.is_file(), timeout_s=60)
    wait_for(lambda: bool(list(harness.place.router.glob("lease-*"))), timeout_s=60)
    known = process_identity.read(harness.place.controller)
    assert known is not None
    yield [child.pid, known.pid]
    for pid in (child.pid, known.pid):
        with_signal(pid, signal.SIGKILL)
    child.wait()


def with_signal(pid: int, number: signal.Signals) -> None:
    if psutil.pid_exists(pid):
        os.kill(pid, number)


def met(harness: RolloutHarness) -> float:
    """Ask for LOOK_S; return the share of requests that met the challenger."""
    since = len(harness.attempts())
    with Users(harness.serving.port) as users:
        time.sleep(LOOK_S)
    assert set(users.statuses) == {200}
    drawn = [line["arm"] for line in harness.attempts()[since:]]
    return drawn.count("challenger") / len(drawn)


def test_killed_at_once_and_not_waited_for_they_leave_the_challenger_nobody(
    harness: RolloutHarness, judges: list[int]
) -> None:
    assert 0.2 < met(harness) < 0.8
    for pid in judges:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: {psutil.Process(pid).status() for pid in judges} == {psutil.STATUS_ZOMBIE})
    assert met(harness) == 0.0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_lease_runs_out_where_nothing_shows_that_they_are_gone(
    harness: RolloutHarness, judges: list[int], number: signal.Signals
) -> None:
    for pid in judges:
        os.kill(pid, number)
    watched = harness.place.router / nginx_config.WATCHED
    watched.unlink()
    watched.touch()  # as where /proc is hidden
    assert 0.2 < met(harness) < 0.8
    time.sleep(LEASE_S + 1 - LOOK_S)
    assert met(harness) == 0.0
