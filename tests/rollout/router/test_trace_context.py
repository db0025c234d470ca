"""W3C Trace Context goes through the router as it came, and into its log where it is one."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rehearsed import wait_for
from served import free_port

from fettle.rollout.router import nginx_process
from fettle.rollout.router.nginx_config import Routes

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Traced:
    """A router before one server that keeps the headers it got."""

    def __init__(self, folder: Path) -> None:
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.port = free_port()
        place = nginx_process.place(folder, host="127.0.0.1", port=self.port, control=free_port())
        self.router = nginx_process.Nginx(place)
        self.router.set_routes(Routes(self.server.server_port))

    def ask(self, **headers: str) -> dict[str, str]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        link.request("POST", "/predict", b"", headers)
        link.getresponse().read()
        link.close()
        return self.headers[-1]

    def logged(self, count: int) -> list[str]:
        log = self.router.place.log
        wait_for(lambda: log.is_file() and len(log.read_text().splitlines()) == count)
        return [json.loads(line)["trace"] for line in log.read_text().splitlines()]


@pytest.fixture
def traced(tmp_path: Path) -> Iterator[Traced]:
    made = Traced(tmp_path)
    yield made
    made.router.stop()
    made.server.shutdown()
    made.server.server_close()


def test_the_trace_of_a_caller_goes_through_unchanged_and_is_logged(traced: Traced) -> None:
    got = traced.ask(traceparent=TRACE, tracestate="a=1,b=2")
    assert (got["traceparent"], got["tracestate"]) == (TRACE, "a=1,b=2")
    traced.ask()
    assert traced.logged(2) == [TRACE, ""]


@pytest.mark.parametrize(
    "given", ["x", TRACE.upper(), f'{TRACE}"', TRACE[:-1], TRACE + "-" + "a" * 300]
)
def test_what_is_no_trace_goes_through_and_is_not_logged(traced: Traced, given: str) -> None:
    assert traced.ask(traceparent=given)["traceparent"] == given
    assert traced.logged(1) == [""]
