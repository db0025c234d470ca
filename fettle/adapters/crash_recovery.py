"""Mend what a killed run left behind: half a dvc.lock, path locks of the dead, runs still open.

What Prefect believes of such a run is mended in flows/prefect_recovery.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from fettle.adapters.dvc_graph import load
from fettle.errors import ProjectError


def recover(tree: Path) -> list[str]:
    """Mend what a killed run can leave behind; return what was done, a line each.

    DVC writes dvc.lock in place, so a kill may leave half of it. It is set aside: the run-cache
    knows every finished stage by its inputs and brings it back without running it.
    """
    done = ["a lock of a dead process was removed"] if clear_dead_locks(tree) else []
    (tree / ".fettle").mkdir(exist_ok=True)
    try:
        load(tree)
    except ProjectError as err:
        lock = tree / "dvc.lock"
        if "dvc.lock" not in str(err) or not lock.is_file():
            raise
        lock.replace(tree / ".fettle" / "dvc.lock.broken")
        load(tree)
        done.append("a half-written dvc.lock was set aside; the cache has the finished stages")
    return done


def clear_dead_locks(tree: Path) -> bool:
    """Remove DVC's path locks when no process behind them lives; True if one was removed.

    DVC drops a lock whose process is gone, but not one of a zombie, nor an empty or broken file
    left by a crash.
    """
    path = tree / ".dvc" / "tmp" / "rwlock"
    if not path.is_file():
        return False
    try:
        pids = list(_pids(json.loads(path.read_text())))
    except ValueError:
        pids = [0]  # broken: nobody holds it
    if not pids or any(_lives(pid) for pid in pids):
        return False
    path.unlink()
    return True


def _pids(node: Any) -> Iterator[int]:  # Any: DVC's lock document
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "pid":
                yield int(value)
            else:
                yield from _pids(value)
    elif isinstance(node, list):
        for value in node:
            yield from _pids(value)


def _lives(pid: int) -> bool:
    try:
        return pid > 0 and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
