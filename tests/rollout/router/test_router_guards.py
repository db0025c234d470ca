"""The router's guards: no key, no body taken; no rights, no root; nobody takes all connections."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from router_bench import Bench

from fettle.rollout.router import nginx_binary, nginx_process, router_key
from fettle.serving import api_key_file

KEY = "a.B+c/d=e$f{g};h\"i'j\\k"  # printable, and full of what a configuration reads otherwise
NO_KEY = b'{"error": "this server needs its API key: `Authorization: Bearer KEY`"}'


@pytest.fixture
def keyed(bench: Bench) -> Bench:
    """A router that asks for KEY."""
    name = router_key.write(bench.folder, KEY)
    bench.router = nginx_process.Nginx(replace(bench.router.place, key_file=name))
    bench.router.set_routes(bench.routes(weight_percent=50))
    return bench


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": KEY},
        {"X-API-Key": KEY.lower()},
        {"X-API-Key": KEY + "x"},
        {"X-API-Key": ""},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer   {KEY}"},
        {"Authorization": f"BEARER {KEY}", "X-API-Key": "wrong"},
        {"Authorization": "Bearer wrong", "X-API-Key": KEY},
        {"Authorization": "Bearer", "X-API-Key": KEY},
        {"Authorization": "Basic x", "X-API-Key": KEY},
        {"Authorization": f"Bearer x{KEY}"},
        {"Authorization": f"Basic {KEY}"},
    ],
)
def test_the_router_lets_through_whom_the_release_would(
    keyed: Bench, headers: dict[str, str]
) -> None:
    given = {name.lower().encode(): value.encode() for name, value in headers.items()}
    admitted = api_key_file.admits(KEY, given)
    keyed.link.request("POST", "/predict", b"x", headers)
    answer = keyed.link.getresponse()
    body = answer.read()
    assert (answer.status == 200) == admitted
    if not admitted:
        assert (answer.status, body) == (401, NO_KEY)
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.headers["X-Request-Id"]


def test_health_is_open_and_everything_else_is_not(keyed: Bench) -> None:
    found = {}
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/", "/livez/x", "//livez", "/%2f"):
        keyed.link.request("GET", path)
        answer = keyed.link.getresponse()
        answer.read()
        found[path] = answer.status
    opened = {path for path, status in found.items() if status != 401}
    assert opened == {"/livez", "/readyz", "/healthz", "//livez"}  # nginx joins the slashes


def test_a_body_without_a_key_is_answered_before_it_came_and_never_written(keyed: Bench) -> None:
    links = []
    for _ in range(20):
        link = socket.create_connection(("127.0.0.1", keyed.port), timeout=10)
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {15 * 2**20}\r\n\r\n"
        link.sendall(head.encode())
        links.append(link)
    assert {link.recv(12) for link in links} == {b"HTTP/1.1 401"}
    for link in links:
        link.settimeout(0.2)
        for _ in range(4):
            try:
                link.sendall(b"\0" * 2**18)
            except OSError:
                break
    assert temporary_bytes(keyed) == 0
    for link in links:
        link.close()


def temporary_bytes(bench: Bench) -> int:
    """Bytes of bodies that nginx holds, in files that it has deleted already."""
    assert bench.router.pid is not None
    found = 0
    for worker in psutil.Process(bench.router.pid).children():
        for link in Path(f"/proc/{worker.pid}/fd").iterdir():
            if "/tmp/body/" in str(link.readlink()):
                found += link.stat().st_size
    return found


def test_the_key_lies_in_a_file_of_its_own_that_others_cannot_read(keyed: Bench) -> None:
    (file,) = keyed.folder.glob(router_key.GLOB)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "x24f" in file.read_text()
    shown = (keyed.folder / "nginx.conf").read_text()
    assert f"include {file.name};" in shown
    assert KEY not in shown
    assert router_key.write(keyed.folder, KEY) == file.name
    assert router_key.write(keyed.folder, "another") != file.name
    assert len(list(keyed.folder.glob(router_key.GLOB))) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: who else cannot give rights away")
def test_no_worker_is_root_and_the_kill_switch_and_large_bodies_work_all_the_same(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)  # as /root is
    (closed / "router").mkdir()
    bench = Bench(closed / "router")
    try:
        bench.router.set_routes(bench.routes(weight_percent=100))
        assert bench.router.pid is not None
        workers = psutil.Process(bench.router.pid).children()
        assert workers
        assert all(0 not in worker.uids() + worker.gids() for worker in workers)
        assert bench.ask(b"x" * 4 * 2**20)[:2] == (200, b"B %d" % (4 * 2**20))
        nginx_process.engage_kill_switch(bench.folder)
        assert bench.ask()[1] == b"A 1"
        bench.router.rotate(most_bytes=1)
        time.sleep(0.3)
        assert bench.ask()[0] == 200
        assert len(list(bench.folder.glob("attempts*.log"))) == 2
        deadline = time.monotonic() + 5
        while not bench.router.place.log.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.05)
        assert bench.router.place.log.stat().st_size
    finally:
        bench.close()


def test_one_address_has_so_many_requests_at_once_and_is_told_so(bench: Bench) -> None:
    bench.router = nginx_process.Nginx(replace(bench.router.place, per_address=3))
    bench.router.set_routes(bench.routes())
    links = []
    for _ in range(3):
        link = socket.create_connection(("127.0.0.1", bench.port), timeout=10)
        link.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        links.append(link)
    time.sleep(0.3)
    bench.link.request("POST", "/predict", b"x")
    answer = bench.link.getresponse()
    body = answer.read()
    assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    assert body == b'{"error": "too many requests at once from this address; try again"}'
    (line,) = bench.logged(1)
    assert (line.status, line.tries) == (429, ())
    for link in links:
        link.close()
    time.sleep(0.3)
    assert bench.ask()[0] == 200


def test_a_head_that_never_ends_is_given_up_in_all(bench: Bench) -> None:
    bench.router = nginx_process.Nginx(replace(bench.router.place, read_s=1))
    bench.router.set_routes(bench.routes())
    with socket.create_connection(("127.0.0.1", bench.port), timeout=10) as link:
        began = time.monotonic()
        link.sendall(b"POST /predict HTTP/1.1\r\n")
        gone = False
        while not gone and time.monotonic() - began < 8:
            time.sleep(0.3)
            try:
                link.sendall(b"X-A: b\r\n")  # a drop now and then, which a time-out per read allows
                link.setblocking(False)
                gone = link.recv(64) == b""
            except BlockingIOError:
                pass
            except OSError:
                gone = True
            link.setblocking(True)
    assert gone
    assert time.monotonic() - began < 4


def test_a_router_that_an_earlier_version_started_elsewhere_is_started_anew(bench: Bench) -> None:
    bench.router.set_routes(bench.routes())
    first = bench.router.pid
    assert first is not None
    place = bench.router.place
    bench.router.stop()
    (place.folder / "nginx.conf").write_text(
        (place.folder / "nginx.conf").read_text().replace("pid nginx", f"pid {place.folder}/nginx")
    )
    os.system(f"cd / && {nginx_binary.binary()} -p {place.folder} -c {place.folder}/nginx.conf")
    deadline = time.monotonic() + 10  # its parent returns before it has written its pid
    while (old := bench.router.pid) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert old is not None
    bench.router.set_routes(bench.routes(weight_percent=100))
    assert bench.router.pid not in (None, old)
    assert bench.ask()[1] == b"B 1"
    nginx_process.engage_kill_switch(bench.folder)
    assert bench.ask()[1] == b"A 1"


def test_the_challenger_meets_nobody_from_the_death_of_its_watch_on(bench: Bench) -> None:
    """With the watchdog and the controller dead nobody else would engage the kill switch."""
    bench.router.set_routes(bench.routes(weight_percent=100))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    bench.router.watch(child.pid)
    assert bench.ask()[1] == b"B 1"
    child.kill()
    child.wait()
    assert {bench.ask()[1] for _ in range(10)} == {b"A 1"}
    assert bench.logged(11)[-1].weight_percent == 0
    bench.router.watch(os.getpid())
    assert bench.ask()[1] == b"B 1"
    bench.router.watch(None)
    assert bench.ask()[1] == b"B 1"
