"""What runs and what a run noted in a box's project: stages' processes, trackers' databases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psutil
from box import Box


def states(box: Box, database: str, query: str) -> set[str]:
    with closing(sqlite3.connect(box.project / ".fettle" / database)) as db:
        return {row[0] for row in db.execute(query)}


def stage_process(box: Box, name: str) -> int | None:
    """Find the running process of a stage of this project: other tests may run the same stage."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if words[-2:] == ["stage", name] and process.info["cwd"] == str(box.project):
            return int(process.pid)
    return None


def zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_for(look: Callable[[], Any], seconds: float = 90) -> Any:  # Any: whatever is waited for
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return found
