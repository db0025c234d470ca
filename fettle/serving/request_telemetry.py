"""Request telemetry: every request gets an id, is counted, and logged as one line of JSON.

The id is the router's `X-Request-Id` when it is well-formed, else a new one, and is returned under
the same name. Labels are bounded: a path that is no route counts as "other", as does a method that
HTTP does not know, so a scan of random paths makes no new series.

    {"time": …, "request_id": …, "method": "POST", "path": "/predict", "status": 200, "ms": 1.8,
     "images": 1, "client": "127.0.0.1"}         and "reason" when the request was refused,
                                                 "traceparent" when it came with one (W3C)

Health checks and scrapes that went well are counted, not logged.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

from fettle.serving.asgi_messages import App, Headers, Message, Receive, Send, messages
from fettle.serving.prometheus_metrics import OTHER, ServerMetrics

REQUEST_ID = b"x-request-id"
OWN_TIME = b"x-fettle-ms"  # for the router, whose clock has whole milliseconds
WELL_FORMED = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
TRACE = b"traceparent"
# W3C Trace Context: version, trace, parent, flags; a later version may have more
TRACE_FORM = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,256})?")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
QUIET = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
PATH_MOST = 200  # characters of a path in the log
NOTE = "fettle.note"  # what a request's handler adds to its log line, in the ASGI scope

Note = dict[str, object]


def note(scope: Message) -> Note:
    """Return the part of the log line that a handler may fill (`images`, `reason`)."""
    found: Note = scope.setdefault(NOTE, {})
    return found


def to_stdout(line: str) -> None:
    """Write a line in one call, so that lines of several workers do not mix."""
    os.write(1, line.encode() + b"\n")


class Telemetry:
    """ASGI middleware around the whole server; what escapes from it becomes a 500 with its id."""

    def __init__(
        self,
        app: App,
        *,
        routes: frozenset[str],
        metrics: ServerMetrics,
        write: Callable[[str], None] = to_stdout,
    ) -> None:
        self._app = app
        self._routes = routes
        self._metrics = metrics
        self._write = write

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = time.perf_counter()
        trace = next((value for name, value in scope["headers"] if name == TRACE), b"")
        if TRACE_FORM.fullmatch(trace):
            note(scope)["traceparent"] = trace.decode()
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
        request_id = given if WELL_FORMED.fullmatch(given) else os.urandom(16).hex().encode()
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                ours = (REQUEST_ID, OWN_TIME)
                kept: Headers = [h for h in message.get("headers", []) if h[0] not in ours]
                own = f"{(time.perf_counter() - started) * 1e3:.3f}".encode()
                kept += [(REQUEST_ID, request_id), (OWN_TIME, own)]
                message = {**message, "headers": kept}
            await send(message)

        self._metrics.running(1)
        try:
            await self._app(scope, receive, watched)
        except Exception as err:  # the outermost place: nothing above would answer
            note(scope)["reason"] = f"{type(err).__name__}: {err}"
            traceback.print_exc(file=sys.stderr)
            if status == 0:
                for message in messages(500, b'{"error": "the server failed; see its log"}'):
                    await watched(message)
        finally:
            self._metrics.running(-1)
            self._tell(scope, request_id.decode(), status, time.perf_counter() - started)

    def _tell(self, scope: Message, request_id: str, status: int, seconds: float) -> None:
        path, method = scope["path"], scope["method"]
        route = path if path in self._routes else OTHER
        self._metrics.answered(route, method if method in METHODS else OTHER, status, seconds)
        if path in QUIET and status == 200:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            "method": method[:20],
            "path": path[:PATH_MOST],
            "status": status,  # 0: the client left before there was an answer
            "ms": round(seconds * 1e3, 3),
            **note(scope),
            "client": (scope.get("client") or ("",))[0],
        }
        self._write(json.dumps(line))
