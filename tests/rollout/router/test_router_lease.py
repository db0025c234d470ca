"""The router's lease: without one the challenger meets nobody, whatever is dead or hangs."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from router_bench import Bench

from fettle.rollout.router import nginx_process, router_lease


@pytest.fixture
def leased(bench: Bench) -> Bench:
    """A router whose challenger would get every request, with a lease."""
    bench.router = nginx_process.Nginx(replace(bench.router.place, leased=True))
    bench.router.set_routes(bench.routes(weight_percent=100))
    return bench


def seconds(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("lease-")) for path in folder.glob("lease-*"))


def test_a_lease_lets_each_second_until_it_runs_out_and_no_other(tmp_path: Path) -> None:
    router_lease.renew(tmp_path, lease_s=3, now_s=100.9)
    assert seconds(tmp_path) == [99, 100, 101, 102, 103]
    router_lease.renew(tmp_path, lease_s=3, now_s=102.0)
    assert seconds(tmp_path) == [101, 102, 103, 104, 105]


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_step_of_the_wall_clock_leaves_no_second_of_before(tmp_path: Path, step_s: float) -> None:
    router_lease.renew(tmp_path, lease_s=2, now_s=10_000)
    router_lease.renew(tmp_path, lease_s=2, now_s=10_000 + step_s)
    begin = 10_000 + int(step_s)
    assert seconds(tmp_path) == [begin - 1, begin, begin + 1, begin + 2]


def test_a_disk_that_takes_no_file_ends_the_lease_and_nothing_else(tmp_path: Path) -> None:
    router_lease.renew(tmp_path / "gone", lease_s=2, now_s=100)
    (tmp_path / "lease-note").touch()  # a stranger's stays
    router_lease.renew(tmp_path, lease_s=0.5, now_s=100)
    assert (tmp_path / "lease-note").exists()


def test_the_challenger_meets_nobody_without_a_lease(leased: Bench) -> None:
    assert leased.ask()[1] == b"A 1"
    router_lease.renew(leased.folder, lease_s=60, now_s=time.time())
    assert leased.ask()[1] == b"B 1"
    assert [line.weight_percent for line in leased.logged(2)] == [0.0, 100.0]


def test_a_lease_runs_out_by_itself(leased: Bench) -> None:
    router_lease.renew(leased.folder, lease_s=1, now_s=time.time())
    assert leased.ask()[1] == b"B 1"
    time.sleep(2.1)
    assert leased.ask()[1] == b"A 1"


def test_a_connection_that_a_reload_left_to_an_old_worker_ends_with_the_lease(
    leased: Bench,
) -> None:
    router_lease.renew(leased.folder, lease_s=60, now_s=time.time())
    assert leased.ask()[1] == b"B 1"
    leased.router.set_routes(leased.routes(weight_percent=50))  # the kept link stays where it is
    router_lease.renew(leased.folder, lease_s=60, now_s=time.time() - 3600)
    assert {leased.ask()[1] for _ in range(20)} == {b"A 1"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_the_challenger_meets_nobody_once_its_watch_is_a_zombie(bench: Bench) -> None:
    """In a container whose first process is no init a dead watchdog's entry stays for ever."""
    bench.router.set_routes(bench.routes(weight_percent=100))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    bench.router.watch(child.pid)
    assert bench.ask()[1] == b"B 1"
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert {bench.ask()[1] for _ in range(10)} == {b"A 1"}
    child.wait()
