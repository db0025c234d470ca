"""What one line of the router's log says of the arms."""

from __future__ import annotations

import json

from fettle.rollout.promotion.request_records import CLIENT_GONE, Attempt
from fettle.rollout.router import access_log
from fettle.rollout.supervisor.evidence_collector import attempts_of

CHAMPION, CHALLENGER = "127.0.0.1:3101", "127.0.0.1:3102"


def attempts(**changed: object) -> list[Attempt]:
    doc = {
        "time": 5.0,
        "id": "r1",
        "arm": "challenger",
        "weight": 10,
        "key": "",
        "status": 200,
        "addr": CHALLENGER,
        "statuses": "200",
        "times": "0.004",
        "predicted": "1",
        "inputs": "0.5",
        "own": "3.612",
    }
    line = json.dumps({**doc, **changed}).encode()
    known = {CHAMPION: "champion", CHALLENGER: "challenger"}
    return list(attempts_of(access_log.parse(line, known)))  # type: ignore[arg-type]  # two arms


def test_the_own_time_counts_where_the_router_saw_the_same() -> None:
    assert attempts()[0].latency_ms == 3.612
    assert attempts(times="0.040")[0].latency_ms == 40.0
    assert attempts(own="-")[0].latency_ms == 4.0


def test_a_caller_who_left_is_told_with_the_time_that_he_waited() -> None:
    (left,) = attempts(status=CLIENT_GONE, statuses="-", times="2.500", own="-")
    assert (left.status, left.latency_ms, left.failed, left.gone) == (CLIENT_GONE, 2500.0, 0, 1)


def test_a_failure_before_the_caller_left_stays_a_failure() -> None:
    both = f"{CHALLENGER}, {CHAMPION}"
    first, second = attempts(
        status=CLIENT_GONE, addr=both, statuses="500, -", times="0.001, 1.0", own="-"
    )
    assert (first.status, first.failed, first.replay) == (500, True, False)
    assert (second.status, second.replay) == (CLIENT_GONE, True)


def test_an_answer_that_was_complete_before_the_caller_left_is_an_answer() -> None:
    assert attempts(status=CLIENT_GONE)[0].status == 200


def test_of_a_replay_the_own_time_is_the_last_server_s() -> None:
    both = f"{CHALLENGER}, {CHAMPION}"
    first, second = attempts(addr=both, statuses="503, 200", times="0.002, 0.004")
    assert (first.latency_ms, second.latency_ms) == (2.0, 3.612)
