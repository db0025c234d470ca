"""Log rotation of the supervisor: each log has an end, though its writer holds it open for weeks.

Copied and cut off (copytruncate): the writers append, so they go on at the new end. The router's
log of requests, which is read by position, is put aside by nginx_process.py instead.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from fettle.rollout.supervisor.state_layout import StateLayout

MOST_BYTES = 8 * 2**20  # 40,000 requests of a release's log; as much again in NAME.1
LOGS = ("*.log", "router/*.log", "arms/*/server.log", "rollouts/*/*.log")
READ_BY_POSITION = "attempts"
ANSWER_S = 3600.0  # whoever ordered waits two minutes at most
SET_ASIDE_MOST = 100


def rotate(place: StateLayout, *, most_bytes: int = MOST_BYTES, now_s: float | None = None) -> None:
    """Cut every log that is full, and delete answers to orders that nobody fetched."""
    for pattern in LOGS:
        for path in place.folder.glob(pattern):
            if not path.name.startswith(READ_BY_POSITION):
                with suppress(OSError):  # a full disk: the copy fails, the cut below makes room
                    _cut(path, most_bytes)
    _forget_answers(place, time.time() if now_s is None else now_s)


def _cut(path: Path, most_bytes: int) -> None:
    if path.stat().st_size < most_bytes:
        return
    try:
        shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    finally:
        with path.open("r+b") as log:
            log.truncate()


def _forget_answers(place: StateLayout, now_s: float) -> None:
    found = [path for path in place.outbox.glob("*") if path.is_file()]
    for path in found:
        with suppress(OSError):
            if path.suffix == ".json" and now_s - path.stat().st_mtime > ANSWER_S:
                path.unlink()
    aside = sorted(path for path in found if path.suffix == ".bad")
    for path in aside[:-SET_ASIDE_MOST]:
        path.unlink(missing_ok=True)


def last_line(log: Path) -> str:
    """Return the last line of a log, or say that it is empty."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "an empty log"
