"""Measurement lock: stages work side by side, or measure alone (docs/decisions/0005).

Two benchmarks on two cores measure each other, so a stage that measures holds the lock alone and
any other shares it. Whoever asks goes through a turnstile first, one at a time, and stands in it
while waiting: a stage that waits to measure is not overtaken by those that only work. Both are
flocks in the system's temporary folder, one pair a user; the kernel frees them at any death.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

PROC_LOCKS = Path("/proc/locks")  # Linux: every lock of the machine, a line each


@contextmanager
def machine_lock(
    *, alone: bool, on_wait: Callable[[str], None], folder: Path | None = None
) -> Iterator[None]:
    """Lock the machine, shared or alone; `on_wait` is told once who holds it, if one must wait."""
    name = f"fettle-measure-{os.getuid()}"
    folder = folder or Path(tempfile.gettempdir())
    with (folder / f"{name}.lock").open("a") as lock:
        with (folder / f"{name}.turnstile").open("a") as turnstile:
            waited = _take(turnstile, fcntl.LOCK_EX, lock, on_wait)
            _take(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, lock, on_wait, waited=waited)
        yield


def _take(
    handle: IO[str],
    how: int,
    lock: IO[str],
    on_wait: Callable[[str], None],
    *,
    waited: bool = False,
) -> bool:
    """Take one flock; return whether somebody was told of waiting."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        if not waited:
            on_wait(f"waiting for the machine: held by {_names(holders(lock))}")
        fcntl.flock(handle, how)
        return True
    return waited


def holders(lock: IO[str]) -> list[int]:
    """Return the processes that hold a flock on this file; none where the system does not tell."""
    if not PROC_LOCKS.is_file():
        return []
    inode = str(os.fstat(lock.fileno()).st_ino)
    rows = [line.split() for line in PROC_LOCKS.read_text().splitlines()]
    # "1: FLOCK ADVISORY WRITE 123 08:01:4567 0 EOF"; one that waits has "->" after the number
    locks = [r for r in rows if r[1] == "FLOCK" and r[5].rpartition(":")[2] == inode]
    return sorted(int(row[4]) for row in locks)


def _names(pids: list[int]) -> str:
    return ", ".join(_name(pid) for pid in pids) or "another stage"


def _name(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        words, where = process.cmdline(), process.cwd()
    except psutil.Error:
        return f"process {pid}"
    position = words.index("stage") + 1 if "stage" in words[:-1] else 0
    return f"process {pid} ({' '.join(words[position:])[:60]} in {where})"
