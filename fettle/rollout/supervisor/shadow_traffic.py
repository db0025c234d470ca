"""Shadow traffic: held-out requests asked of both arms, once each; no user sees the challenger's.

Asks the servers themselves, not the router, so that a replay is no traffic. Needs the test split
that the challenger was judged on; without it there are no pairs, and no pairs never promote.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.data import image_table
from fettle.rollout.supervisor import jsonl
from fettle.rollout.supervisor.drift_reference import tree_of_release

PER_S = 100.0  # leaves most of two cores to the users; 2,000 pairs take 20 s
BATCH = 20  # pairs written at once
DISK_AGAIN_S = 1.0
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class HeldOutRequest:
    """One held-out request: an encoded image and its class."""

    body: bytes
    label: str


def held_out_requests(trees: Sequence[Path], release: Path) -> list[HeldOutRequest]:
    """Read the test split that `release` was judged on, from the first tree that still has it.

    `trees`: the project and its workspaces. None is found when all hold other data by now.
    """
    tree = tree_of_release(trees, release)
    if tree is None:
        return []
    rows = image_table.read_split(tree / "artifacts/ingest", tree / "artifacts/validate", "test")
    return [
        HeldOutRequest(encoded, rows.classes[label])
        for encoded, label in zip(rows.encoded, rows.labels, strict=True)
    ]


def images(trees: Sequence[Path], release: Path, most: int) -> int:
    """Return how many held-out images the shadow asks: all, or so many at most."""
    return min(len(held_out_requests(trees, release)), most)


class ShadowTraffic:
    """Asks in a thread of its own until `requests` pairs are written, each image once, or stopped.

    `ports` returns the loopback ports of champion and challenger as they are now.
    """

    def __init__(
        self,
        path: Path,
        held: list[HeldOutRequest],
        *,
        ports: Callable[[], tuple[int, int]],
        key: str | None,
        requests: int,
        per_s: float = PER_S,
    ) -> None:
        self._path, self._held, self._ports, self._key = path, held, ports, key
        self._requests, self._per_s = requests, per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the replay; what was written stays."""
        self._stop.set()
        self._thread.join(timeout=2 * TIMEOUT_S)

    def _run(self) -> None:
        done = len(jsonl.read(self._path, 0)[0])  # a controller before this one may have begun
        batch = []
        for number in range(done, min(self._requests, len(self._held))):
            if self._stop.wait(1 / self._per_s):
                break
            batch.append(self._pair(number))
            if len(batch) >= BATCH and self._written(batch):
                batch = []
        while batch and not self._written(batch) and not self._stop.wait(DISK_AGAIN_S):
            pass

    def _written(self, batch: list[dict[str, object]]) -> bool:
        """Write pairs; False on a full disk: they are kept, and tried again with the next."""
        try:
            jsonl.append(self._path, batch)
        except OSError:
            return False
        return True

    def _pair(self, number: int) -> dict[str, object]:
        held = self._held[number]
        champion, challenger = self._ports()
        return {
            "request_id": f"shadow-{number}",
            "time_s": time.time(),
            "champion": predict(champion, held.body, self._key),
            "challenger": predict(challenger, held.body, self._key),
            "label": held.label,
        }


def predict(port: int, body: bytes, key: str | None) -> str | None:
    """Return the class that the server on this port of loopback names; None when it fails."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        link.request("POST", "/predict", body, headers(body, key))
        answer = link.getresponse()
        doc = json.loads(answer.read())
        return str(doc[0]["label"]) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return None
    finally:
        link.close()


def headers(body: bytes, key: str | None) -> dict[str, str]:
    """Return the headers of a request with one encoded image."""
    kinds = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"BM": "image/bmp"}
    kind = next((kind for magic, kind in kinds.items() if body.startswith(magic)), "image/png")
    return {"Content-Type": kind} | ({"X-API-Key": key} if key else {})
