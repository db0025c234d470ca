"""Requests that no release answers: 503 for the user, a line with every try for the gates."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
from dataclasses import replace

import pytest
from router_bench import Bench

from fettle.rollout.promotion.request_records import Arm
from fettle.rollout.router import nginx_process
from fettle.rollout.router.nginx_config import RETRY_AFTER_S
from fettle.rollout.supervisor.evidence_collector import attempts_of


def end(arm: subprocess.Popen[bytes]) -> None:
    arm.kill()
    arm.wait()


def asked(bench: Bench, path: str = "/predict", method: str = "POST") -> http.client.HTTPResponse:
    bench.link.request(method, path, b"x" if method == "POST" else None)
    answer = bench.link.getresponse()
    answer.read()
    return answer


@pytest.mark.parametrize("weight_percent", [0, 100])
def test_with_both_arms_dead_a_user_is_told_when_to_try_again_and_the_gates_are_told_too(
    bench: Bench, weight_percent: int
) -> None:
    bench.router.set_routes(bench.routes(weight_percent=weight_percent))
    for arm in bench.arms.values():
        end(arm)
    bench.link.request("POST", "/predict", b"x")
    answer = bench.link.getresponse()
    assert (answer.status, answer.read()) == (
        503,
        b'{"error": "no release answers now; try again"}',
    )
    assert answer.headers["Retry-After"] == str(RETRY_AFTER_S)
    assert answer.headers["Content-Type"] == "application/json"
    (line,) = bench.logged(1)
    assert (line.status, line.request_id) == (503, answer.headers["X-Request-Id"])
    failed = {attempt.arm for attempt in attempts_of(line) if attempt.failed}
    asked_arms = {Arm.CHAMPION, Arm.CHALLENGER} if weight_percent else {Arm.CHAMPION}
    assert failed == asked_arms


def test_arms_that_hang_cost_a_503_that_is_logged(bench: Bench) -> None:
    bench.router = nginx_process.Nginx(replace(bench.router.place, answer_s=1, challenger_s=1))
    bench.router.set_routes(bench.routes(weight_percent=100))
    for arm in bench.arms.values():
        os.kill(arm.pid, signal.SIGSTOP)
    answer = asked(bench)
    for arm in bench.arms.values():
        os.kill(arm.pid, signal.SIGCONT)
    assert (answer.status, answer.headers["Retry-After"]) == (503, str(RETRY_AFTER_S))
    (line,) = bench.logged(1)
    assert [(one.arm, one.status) for one in line.tries] == [
        ("challenger", 504),
        ("champion", 504),
    ]


def test_what_is_no_request_of_a_users_leaves_no_evidence_when_nobody_answers(
    bench: Bench,
) -> None:
    bench.router.set_routes(bench.routes(feedback=1))
    for arm in bench.arms.values():
        end(arm)
    for path, method in (("/readyz", "GET"), ("/feedback", "POST")):
        answer = asked(bench, path, method)
        assert (answer.status, answer.headers["Retry-After"]) == (503, str(RETRY_AFTER_S))
    assert asked(bench).status == 503  # its line comes after what the others would have left
    (line,) = bench.logged(1)
    assert [one.arm for one in line.tries] == ["champion", "champion"]
