"""Late labels (feedback): `POST /feedback`, joined by request id to what was answered.

    {"request_id": "…", "label": "3"}      one image
    {"request_id": "…", "labels": ["3"]}   a request of several, in its order
    [{…}, {…}]                             many at once

A label that was answered 200 is on the disk. A request counts once: its first label. It is right
when every class of the request was.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST

from fettle.json_values import JsonObject
from fettle.rollout.promotion.request_records import Label
from fettle.rollout.supervisor import jsonl
from fettle.serving import api_key_file

BODY_MAX_BYTES = 2**20
MANY_MAX = 5000  # labels in one request
# 250 bytes each: 50 MB. A label later than this many requests finds nothing to join.
REMEMBERED = 200_000
TIMEOUT_S = 10.0
METRICS = "/metrics"


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request was answered with: class numbers, one an image."""

    arm: str
    predicted: tuple[int, ...]


class AnsweredRequests:
    """The last requests that were answered, and which of them have their label.

    `classes`: the names that an arm's class numbers mean; two releases may order them differently.
    """

    def __init__(
        self, classes: Mapping[str, Sequence[str]], path: Path, most: int = REMEMBERED
    ) -> None:
        self.classes = {arm: tuple(names) for arm, names in classes.items()}
        self.path = path
        self._most = most
        self._answered: OrderedDict[str, Answered] = OrderedDict()
        self._lock = threading.Lock()
        done, _ = jsonl.read(path, 0, take=label)
        self._labelled = {one.request_id for one in done}

    def remember(self, request_id: str, answered: Answered) -> None:
        """Keep what a request was answered with."""
        with self._lock:
            self._answered[request_id] = answered
            if len(self._answered) > self._most:
                self._answered.popitem(last=False)

    def join(self, given: Sequence[tuple[str, tuple[str, ...]]], now_s: float) -> dict[str, int]:
        """Join labels to their requests and write them down; count what became of them.

        Raises ValueError naming a label that is no class, or a number of them that does not fit.
        """
        counts = {"accepted": 0, "unknown": 0, "repeated": 0}
        docs, new = [], set[str]()
        with self._lock:
            for request_id, labels in given:
                answered = self._answered.get(request_id)
                self._check(request_id, labels, answered)
                if request_id in self._labelled or request_id in new:
                    counts["repeated"] += 1
                elif answered is None or not answered.predicted:
                    counts["unknown"] += 1
                else:
                    counts["accepted"] += 1
                    new.add(request_id)
                    right = self._names(answered) == labels
                    docs.append({"request_id": request_id, "time_s": now_s, "correct": right})
            jsonl.append(self.path, docs, durable=True)
            self._labelled |= new  # not before: what a full disk does not take may come again
        return counts

    def _names(self, answered: Answered) -> tuple[str | None, ...]:
        names = self.classes.get(answered.arm, ())
        return tuple(names[at] if at < len(names) else None for at in answered.predicted)

    def _check(self, request_id: str, labels: tuple[str, ...], answered: Answered | None) -> None:
        known = sorted({name for names in self.classes.values() for name in names})
        strange = [label for label in labels if label not in known]
        if strange:
            raise ValueError(f"{strange[0]!r} is no class; the classes are {', '.join(known[:20])}")
        if answered is not None and answered.predicted and len(answered.predicted) != len(labels):
            raise ValueError(
                f"request {request_id} had {len(answered.predicted)} images, not {len(labels)}"
            )


def label(doc: JsonObject) -> Label:
    """Read one line of labels.jsonl. Raises ValueError when it is none."""
    match doc:
        case {
            "request_id": str(request_id),
            "time_s": float(time_s) | int(time_s),
            "correct": bool(correct),
            **further,
        } if jsonl.is_time(time_s) and not further:
            return Label(request_id=request_id, time_s=time_s, correct=correct)
    raise ValueError("no label has such fields")


def parse(body: bytes) -> list[tuple[str, tuple[str, ...]]]:
    """Read a request body.

    Raises ValueError saying what is wrong with it.
    """
    doc = json.loads(body)
    many = doc if isinstance(doc, list) else [doc]
    if not 0 < len(many) <= MANY_MAX:
        raise ValueError(f"one to {MANY_MAX} labels at a time, not {len(many)}")
    return [_one(entry) for entry in many]


def _one(entry: object) -> tuple[str, tuple[str, ...]]:
    if not isinstance(entry, dict) or not isinstance(request_id := entry.get("request_id"), str):
        raise ValueError('each label is an object with "request_id" and "label"')
    labels = entry.get("labels", [entry.get("label")])
    if not isinstance(labels, list) or not labels or not all(isinstance(x, str) for x in labels):
        raise ValueError('"label" is a class name; "labels" is a list of them')
    return request_id, tuple(labels)


class FeedbackRoute:
    """The endpoint, in threads of its own, on a port of loopback behind the router.

    `GET /metrics` there is answered with what `metrics` returns.
    """

    def __init__(self, port: int, key: str | None, metrics: Callable[[], bytes]) -> None:
        self._key = key
        self._memory: AnsweredRequests | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = TIMEOUT_S

            def do_POST(self) -> None:
                status, doc = outer.answer(
                    self.headers.get("Content-Length", ""), dict(self.headers), self.rfile.read
                )
                self.reply(status, "application/json", json.dumps(doc).encode())

            def do_GET(self) -> None:
                if not outer.admits(dict(self.headers)):
                    refusal = json.dumps({"error": api_key_file.REFUSAL}).encode()
                    self.reply(401, "application/json", refusal)
                elif self.path == METRICS:
                    self.reply(200, CONTENT_TYPE_LATEST, metrics())
                else:
                    self.reply(404, "application/json", b'{"error": "there is nothing here"}')

            def reply(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing: the router logs."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def attach(self, memory: AnsweredRequests | None) -> None:
        """Take labels for this rollout, or for none."""
        self._memory = memory

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def admits(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request's headers bring the key."""
        folded = {name.lower().encode(): _latin(value) for name, value in headers.items()}
        return self._key is None or api_key_file.admits(self._key, folded)

    def answer(
        self,
        length: str,
        headers: Mapping[str, str],
        read: Callable[[int], bytes],
    ) -> tuple[int, dict[str, object]]:
        """Answer one request: its status and JSON."""
        if not self.admits(headers):
            return 401, {"error": api_key_file.REFUSAL}
        if not (length.isascii() and length.isdigit()):
            return 411, {"error": "a Content-Length is needed"}
        if int(length) > BODY_MAX_BYTES:
            return 413, {"error": f"the body is larger than {BODY_MAX_BYTES} bytes"}
        memory = self._memory
        if memory is None:
            return 409, {"error": "no rollout is watched now, so there is nothing to join to"}
        try:
            counts = memory.join(parse(read(int(length))), time.time())
        except (ValueError, RecursionError) as err:
            return 400, {"error": str(err)}
        except OSError as err:
            return 507, {"error": f"the labels cannot be kept ({err.strerror}); send them again"}
        return (200 if counts["accepted"] or counts["repeated"] else 404), dict(counts)


def _latin(text: str) -> bytes:
    """Take a header's bytes back from the text that the standard library made of them."""
    return text.encode("latin-1", "replace")
