"""Availability probe: what a user gets, asked at a steady pace over a new connection each time.

An answer is a whole 200, or a 503 that says when to come again. All else is a failure: another
status, a connection that is refused or cut, or none within TIMEOUT_S.
"""

from __future__ import annotations

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fettle.rollout.supervisor import shadow_traffic

EVERY_S = 0.25
TIMEOUT_S = 60.0
AT_ONCE = 64  # all that TIMEOUT_S lets hang, at four a second, and more than hang in fact


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """One probe: when it was sent and answered (monotonic), and what came."""

    sent_s: float
    done_s: float
    status: int
    hinted: bool
    what: str = ""

    @property
    def answered(self) -> bool:
        """Whether the user was told something to go by."""
        return self.status == 200 or (self.status == 503 and self.hinted)


class AvailabilityProbe:
    """Probes until `close`; `answers` grows meanwhile."""

    def __init__(self, port: int, body: bytes, key: str) -> None:
        self._port, self._body = port, body
        self._headers = shadow_traffic.headers(body, key)
        self.answers: list[ProbeAnswer] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def since(self, begin_s: float) -> list[ProbeAnswer]:
        """Return what was sent from a moment on and is answered by now."""
        return [one for one in list(self.answers) if one.sent_s >= begin_s]

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()
        self._thread.join()
        self._pool.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._pool.submit(self._ask)

    def _ask(self) -> None:
        sent_s = time.monotonic()
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            link.request("POST", "/predict", self._body, self._headers)
            answer = link.getresponse()
            answer.read()
            status, hinted, what = answer.status, "Retry-After" in answer.headers, ""
        except (OSError, http.client.HTTPException) as err:
            status, hinted, what = 0, False, type(err).__name__
        finally:
            link.close()
        self.answers.append(ProbeAnswer(sent_s, time.monotonic(), status, hinted, what))
