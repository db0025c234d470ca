"""Lines that are none: torn, glued, alien, of wrong types, too long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fettle.rollout.router import access_log
from fettle.rollout.router.access_log import ProxyAttempt

GOOD: dict[str, Any] = {
    "time": 1000.5,
    "id": "r1",
    "arm": "champion",
    "weight": 20.0,
    "key": "",
    "status": 200,
    "seconds": 0.004,
    "addr": "127.0.0.1:3101",
    "statuses": "200",
    "times": "0.004",
    "predicted": "3",
    "inputs": "0.5",
}


def line(**changed: object) -> bytes:
    return json.dumps({**GOOD, **changed}).encode()


BAD = {
    "no JSON": b"so it goes",
    "a status that was never sent": line().replace(b'"status": 200', b'"status":000'),
    "an alien byte": line(key="u").replace(b'"u"', b'"\xff"'),
    "half a character": line(key="u").replace(b'"u"', b'"\xed\xa0\x80"'),
    "half an escaped character": line(key="u").replace(b'"u"', rb'"\ud800"'),
    "torn": line()[:40],
    "torn and glued to the next": line()[:40] + line(),
    "two in one": line() + line(),
    "no object": b"[1, 2]",
    "empty": b"",
    "zeros of a power cut": b"\0" * 200,
    "deeply nested": b"[" * 50_000,
    "a missing field": json.dumps({k: v for k, v in GOOD.items() if k != "id"}).encode(),
    "time as text": line(time="now"),
    "time as infinity": line(time=float("inf")),
    "time beyond every float": line().replace(b"1000.5", b"9" * 400),
    "a weight beyond the whole": line(weight=200),
    "a weight that is true": line(weight=True),
    "an arm of nobody": line(arm="third"),
    "a status as text": line(status="200"),
    "a status out of range": line(status=-1),
    "an id as a number": line(id=7),
    "tries of other lengths": line(statuses="200, 200"),
    "an address as a list": line(addr=["127.0.0.1:3101"]),
}


@pytest.mark.parametrize("what", BAD)
def test_a_line_that_is_none_is_left_out_and_said(tmp_path: Path, what: str) -> None:
    log = tmp_path / "attempts.log"
    log.write_bytes(b"\n".join([line(id="r1"), BAD[what], line(id="r2")]) + b"\n")
    bad: list[str] = []
    found, at = access_log.read(log, 0, {"127.0.0.1:3101": "champion"}, bad=bad)
    assert [one.request_id for one in found] == ["r1", "r2"]
    assert len(bad) == 1
    assert at == log.stat().st_size


def test_a_line_longer_than_one_look_takes_is_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "attempts.log"
    log.write_bytes(line(id="r1") + b"\n" + b"x" * 300_000 + b"\n" + line(id="r2") + b"\n")
    bad: list[str] = []
    ids: list[str] = []
    at, before = 0, -1
    while at != before:
        before = at
        found, at = access_log.read(log, at, {}, bad=bad)
        ids += [one.request_id for one in found]
    assert ids == ["r1", "r2"]
    assert bad[0] == "longer than 65536 bytes"
    assert at == log.stat().st_size


def test_what_nginx_escapes_is_read_as_the_bytes_that_the_caller_sent(tmp_path: Path) -> None:
    log = tmp_path / "attempts.log"
    log.write_bytes(line(key="K").replace(b"K", rb"\xC3\xA9\x22\x5Cx41\xFF") + b"\n")
    (found,), _ = access_log.read(log, 0, {})
    assert found.key == 'Ã©"\\x41ÿ'


def test_a_request_that_met_no_server_has_no_tries() -> None:
    found = access_log.parse(line(addr="-", statuses="-", times="-", predicted="-", inputs="-"), {})
    assert (found.tries, found.predicted, found.inputs) == ((), (), ())
    found = access_log.parse(line(addr="127.0.0.1:1", statuses="-", times="-"), {})
    assert found.tries == (ProxyAttempt(None, access_log.NO_ANSWER, 0.0),)


def test_a_file_that_only_looks_like_a_log_put_aside_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "attempts.log"
    log.write_bytes(line() + b"\n")
    (tmp_path / "attempts-000000000000copy.log").write_text("x")
    (tmp_path / "attempts-old.log").write_text("x")
    assert len(access_log.read(log, 0, {})[0]) == 1


@pytest.mark.parametrize(
    ("told", "ms"), [("0.430", 0.43), ("-", None), ("", None), ("nan", None), ("1e9", None)]
)
def test_a_release_s_own_time_is_read_where_it_is_one(told: str, ms: float | None) -> None:
    assert access_log.parse(line(own=told), {}).own_ms == ms


def test_a_line_from_before_releases_told_their_time_is_read() -> None:
    assert access_log.parse(line(), {}).own_ms is None
