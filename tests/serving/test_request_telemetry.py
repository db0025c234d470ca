from __future__ import annotations

import json
import re
from typing import Any

import pytest
from asgi_client import Answer, asked
from prometheus_client.parser import text_string_to_metric_families

from fettle.serving.asgi_messages import Message, Receive, Send, refuse
from fettle.serving.prometheus_metrics import ServerMetrics
from fettle.serving.request_telemetry import Telemetry, note

ROUTES = frozenset({"/predict", "/livez"})


class Line:
    """A server that answers 204 (or fails on /broken), with its log and its metrics."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.metrics = ServerMetrics(name="tiny", digest="d1d1d1d1d1d1")
        self.app = Telemetry(
            self.answer, routes=ROUTES, metrics=self.metrics, write=self.log.append
        )

    async def answer(self, scope: Message, _: Receive, send: Send) -> None:
        note(scope)["images"] = 3
        if scope["path"] == "/broken":
            raise RuntimeError("a secret")
        if scope["path"] == "/refused":
            return await refuse(send, 400, "no")
        status = 200 if scope["method"] == "GET" else 204
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return None

    def ask(self, path: str = "/predict", **options: Any) -> tuple[Answer, dict[str, Any]]:
        answer = asked(self.app, path=path, **options)
        return answer, json.loads(self.log[-1]) if self.log else {}

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """Return {label values, by label name from z to a: value} of one metric."""
        return {
            tuple(v for _, v in sorted(sample.labels.items(), reverse=True)): sample.value
            for family in text_string_to_metric_families(self.metrics.text().decode())
            for sample in family.samples
            if sample.name == name
        }


def test_a_request_keeps_the_routers_id() -> None:
    answer, line = Line().ask(x_request_id="a1b2-c3")
    assert answer.headers[b"x-request-id"] == b"a1b2-c3"
    assert line["request_id"] == "a1b2-c3"


@pytest.mark.parametrize("given", ["", 'a"b', "a b", "x" * 129, "schlüssel", "a\nb"])
def test_an_id_that_is_not_well_formed_is_replaced(given: str) -> None:
    answer, line = Line().ask(x_request_id=given)
    assert re.fullmatch(b"[0-9a-f]{32}", answer.headers[b"x-request-id"])
    assert line["request_id"] == answer.headers[b"x-request-id"].decode()


def test_a_request_is_logged_as_one_line_of_json() -> None:
    _, line = Line().ask(client=("192.0.2.7", 1))
    assert list(line) == [
        *("time", "request_id", "method", "path", "status", "ms", "images", "client")
    ]
    assert line["time"].endswith("+00:00")
    assert (line["status"], line["images"], line["client"]) == (204, 3, "192.0.2.7")
    assert 0 < line["ms"] < 1000


def test_the_trace_of_a_caller_is_logged_where_it_is_one() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert Line().ask(traceparent=trace)[1]["traceparent"] == trace
    for wrong in ("", "x", trace[:-1], trace.upper(), trace + '"', trace + "-" + "a" * 300):
        assert "traceparent" not in Line().ask(traceparent=wrong)[1]


def test_no_key_and_no_query_reaches_the_log() -> None:
    server = Line()
    server.ask(authorization="Bearer hidden")
    assert "hidden" not in server.log[-1]


def test_a_path_cannot_break_a_line_or_fill_the_log() -> None:
    server = Line()
    _, line = server.ask(path="/\n" + "x" * 5000)
    assert line["path"] == "/\n" + "x" * 198
    assert "\n" not in server.log[-1]


def test_health_that_is_well_is_counted_but_not_logged() -> None:
    server = Line()
    server.ask(path="/livez", method="GET")
    assert server.log == []
    assert server.counted("fettle_requests_total") == {("200", "/livez", "GET"): 1}
    server.ask(path="/livez")
    assert len(server.log) == 1  # 204: not well


def test_what_escapes_is_a_500_that_tells_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    server = Line()
    answer, line = server.ask(path="/broken", x_request_id="r1")
    assert answer.error == (500, "the server failed; see its log")
    assert answer.headers[b"x-request-id"] == b"r1"
    assert line["reason"] == "RuntimeError: a secret"
    assert "RuntimeError: a secret" in capfd.readouterr().err


def test_unknown_paths_and_methods_fold_into_one_series() -> None:
    server = Line()
    for at in range(50):
        server.ask(path=f"/scan/{at}", method=f"X{at}")
    server.ask(path="/predict")
    assert server.counted("fettle_requests_total") == {
        ("204", "other", "other"): 50,
        ("204", "/predict", "POST"): 1,
    }
    assert server.counted("fettle_request_seconds_count") == {("other",): 50, ("/predict",): 1}


def test_nothing_is_running_when_all_are_answered() -> None:
    server = Line()
    server.ask()
    assert server.counted("fettle_requests_running") == {(): 0}


def test_the_release_is_named_and_batches_are_measured() -> None:
    server = Line()
    server.metrics.batch(3)
    server.metrics.batch(32)
    assert server.counted("fettle_release_info") == {("tiny", "d1d1d1d1d1d1"): 1}
    assert server.counted("fettle_batch_images_sum") == {(): 35}


@pytest.mark.parametrize("path", ["/predict", "/refused", "/broken"])
def test_every_answer_tells_its_own_time_finer_than_the_routers_clock(path: str) -> None:
    answer, line = Line().ask(path)
    own = answer.headers[b"x-fettle-ms"].decode()
    assert re.fullmatch(r"[0-9]+\.[0-9]{3}", own)
    assert float(own) <= line["ms"] + 0.001
