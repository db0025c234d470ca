"""A real nginx on loopback with two tiny servers behind it."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from certified import certificate
from router_bench import Bench
from served import free_port

from fettle.errors import UserError
from fettle.rollout.promotion.request_records import REPLAYED_STATUSES, failed
from fettle.rollout.router import access_log, nginx_config, nginx_process
from fettle.rollout.router.nginx_config import Routes


def test_the_draw_is_within_its_error_and_every_request_has_the_id_that_is_logged(
    bench: Bench,
) -> None:
    bench.router.set_routes(bench.routes(weight_percent=20))
    seen = [bench.ask() for _ in range(2000)]
    assert {status for status, _, _ in seen} == {200}
    challenger = sum(body.startswith(b"B") for _, body, _ in seen)
    assert abs(challenger / 2000 - 0.2) < 4 * (0.2 * 0.8 / 2000) ** 0.5
    logged = bench.logged(2000)
    assert [line.request_id for line in logged] == [number for _, _, number in seen]
    assert sum(line.tries[0].arm == "challenger" for line in logged) == challenger
    assert {line.weight_percent for line in logged} == {20.0}
    assert (logged[0].predicted, logged[0].inputs) == ((3, 1), (0.5, 0.25))


def test_a_sticky_key_keeps_its_arm_and_a_growing_weight_only_adds_keys(bench: Bench) -> None:
    drawn: dict[int, set[int]] = {}
    for weight in (5, 20, 60):
        bench.router.set_routes(
            bench.routes(weight_percent=weight, sticky="header:X-User", salt="r7")
        )
        bench.link.close()  # a kept connection may still meet the weight before
        answers = [
            {user for user in range(300) if bench.ask(X_User=str(user))[1].startswith(b"B")}
            for _ in range(2)
        ]
        assert answers[0] == answers[1]
        drawn[weight] = answers[0]
    assert drawn[5] < drawn[20] < drawn[60]


def test_a_failing_silent_or_dead_challenger_costs_no_user_an_answer(bench: Bench) -> None:
    bench.router.set_routes(bench.routes(weight_percent=100))
    assert bench.ask(b"x" * 400_000)[:2] == (200, b"B 400000")
    bench.fail("B").touch()
    assert bench.ask(b"x" * 400_000)[:2] == (200, b"A 400000")
    bench.arms["B"].kill()
    bench.arms["B"].wait()
    assert bench.ask(b"x" * 400_000)[:2] == (200, b"A 400000")
    tries = [[(one.arm, one.status) for one in line.tries] for line in bench.logged(3)]
    assert tries == [
        [("challenger", 200)],
        [("challenger", 500), ("champion", 200)],
        [("challenger", 502), ("champion", 200)],
    ]


@pytest.mark.parametrize("status", REPLAYED_STATUSES)
def test_what_the_router_sends_again_is_logged_and_counts_as_failed(
    bench: Bench, status: int
) -> None:
    bench.router.set_routes(bench.routes(weight_percent=100))
    bench.fail("B").write_text(str(status))
    assert bench.ask()[:2] == (200, b"A 1")
    (line,) = bench.logged(1)
    assert [(one.arm, one.status) for one in line.tries] == [
        ("challenger", status),
        ("champion", 200),
    ]
    assert failed(line.tries[0].status)


@pytest.mark.parametrize("key", [b"\xff\xfe", b"\xed\xa0\x80", b'\\"x', "Jürgen".encode()])
def test_whatever_a_caller_sends_as_its_key_makes_a_line_that_is_read(
    bench: Bench, key: bytes
) -> None:
    bench.router.set_routes(bench.routes(weight_percent=50, sticky="cookie:uid"))
    with socket.create_connection(("127.0.0.1", bench.port)) as link:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nCookie: uid="
        link.sendall(head + key + b"\r\n\r\nx")
        assert link.recv(12) == b"HTTP/1.1 200"
    (line,) = bench.logged(1)
    assert re.fullmatch(r"[0-9]{10}", line.key)  # a hash of it: test_sticky_hash.py
    assert bench.router.place.log.read_bytes().isascii()


def test_a_request_cut_off_by_a_reload_leaves_a_line_that_can_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx_config, "MIN_TIMEOUT_S", 0)  # an old worker waits 1 s
    bench.router = nginx_process.Nginx(replace(bench.router.place, answer_s=1))
    bench.router.set_routes(bench.routes(weight_percent=0))
    with socket.create_connection(("127.0.0.1", bench.port)) as link:
        link.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        time.sleep(0.2)
        bench.router.set_routes(bench.routes(weight_percent=10))
        assert link.recv(12) == b""
    (line,) = bench.logged(1)
    assert (line.status, line.tries) == (0, ())


def test_a_certificate_in_a_folder_with_a_space_serves(bench: Bench, tmp_path: Path) -> None:
    pair = certificate(tmp_path / "my certs")
    place = replace(bench.router.place, certificate=pair[0], certificate_key=pair[1])
    bench.router = nginx_process.Nginx(place)
    bench.router.set_routes(bench.routes())
    trust = ssl.create_default_context(cafile=str(pair[0]))
    trust.check_hostname = False
    link = http.client.HTTPSConnection("127.0.0.1", bench.port, context=trust, timeout=20)
    link.request("POST", "/predict", b"x")
    assert link.getresponse().read() == b"A 1"
    link.close()


def test_weight_zero_reaches_kept_connections_of_old_workers_too(bench: Bench) -> None:
    bench.router.set_routes(bench.routes(weight_percent=100))
    assert bench.ask()[1] == b"B 1"
    bench.router.stop_challenger()
    bench.router.set_routes(bench.routes(weight_percent=0))
    assert {bench.ask()[1] for _ in range(50)} == {b"A 1"}
    assert bench.logged(51)[-1].weight_percent == 0
    bench.router.set_routes(bench.routes(weight_percent=100))
    bench.router.release_challenger()
    bench.link.close()
    assert bench.ask()[1] == b"B 1"


def test_the_kill_switch_works_without_nginx_being_told(bench: Bench) -> None:
    bench.router.set_routes(bench.routes(weight_percent=100))
    nginx_process.engage_kill_switch(bench.folder)
    assert {bench.ask()[1] for _ in range(20)} == {b"A 1"}


def test_a_connection_kept_through_a_promotion_never_meets_the_old_release_again(
    bench: Bench,
) -> None:
    bench.router.set_routes(bench.routes(weight_percent=100, salt="r1"))
    assert bench.ask()[1] == b"B 1"
    bench.fail("A").touch()
    bench.router.set_routes(Routes(bench.challenger, spare=bench.champion, salt="r1"))
    bench.router.stop_challenger()
    assert bench.ask()[:2] == (200, b"B 1")  # answered by an old worker, by the old routes
    assert bench.logged(2)[-1].drawn == "challenger"
    assert bench.ask()[:2] == (200, b"B 1")
    assert bench.logged(3)[-1].drawn == "champion"


def test_setting_the_same_routes_again_changes_nothing(bench: Bench) -> None:
    bench.router.set_routes(bench.routes(weight_percent=20))
    before = (bench.folder / "nginx.conf").stat().st_mtime_ns
    bench.router.set_routes(bench.routes(weight_percent=20))
    again = nginx_process.Nginx(bench.router.place)  # a controller that was killed and started anew
    again.set_routes(bench.routes(weight_percent=20))
    assert (bench.folder / "nginx.conf").stat().st_mtime_ns == before


def test_reloads_and_a_log_rotation_under_load_lose_no_request_and_no_line(bench: Bench) -> None:
    bench.router.set_routes(bench.routes(weight_percent=50))
    stop, statuses = threading.Event(), []

    def load() -> None:
        link = http.client.HTTPConnection("127.0.0.1", bench.port, timeout=20)
        while not stop.is_set():
            link.request("POST", "/predict", b"x" * 2000)
            answer = link.getresponse()
            answer.read()
            statuses.append(answer.status)
        link.close()

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for weight in range(10, 70, 10):
        bench.router.set_routes(bench.routes(weight_percent=weight))
        bench.router.rotate(most_bytes=1)  # the first time; the next ones wait for it to settle
    stop.set()
    for thread in threads:
        thread.join()
    assert len(statuses) > 200
    assert set(statuses) == {200}
    position, lines = 0, []
    deadline = time.monotonic() + 10
    while len(lines) < len(statuses) and time.monotonic() < deadline:
        more, position = access_log.read(bench.router.place.log, position, {})
        lines += more
        time.sleep(0.05)
    assert len(list(bench.folder.glob("attempts-*.log"))) == 1
    assert len({line.request_id for line in lines}) == len(lines) == len(statuses)


def test_a_body_beyond_the_cap_is_answered_413_with_the_reason(bench: Bench) -> None:
    bench.router.set_routes(bench.routes())
    status, body, _ = bench.ask(b"x" * (16 * 2**20 + 1))
    assert (status, body) == (413, b'{"error": "the body is larger than 16777216 bytes"}')


def test_a_taken_port_is_refused_with_the_address(bench: Bench) -> None:
    place = nginx_process.place(
        bench.folder / "second", host="127.0.0.1", port=bench.champion, control=free_port()
    )
    with pytest.raises(UserError) as caught:
        nginx_process.Nginx(place).set_routes(bench.routes())
    assert str(caught.value).startswith(
        f"the router cannot listen on 127.0.0.1 port {bench.champion}: got nginx: [emerg] bind() "
    )
