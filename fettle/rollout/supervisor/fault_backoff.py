"""Backoff and crash-loop count: how often the controller failed of late, over its restarts.

A controller that dies judges nothing, so the challenger meets nobody meanwhile. One that dies again
and again has met something that it cannot judge: then the rollout is paused at weight 0.
"""

from __future__ import annotations

import errno
from pathlib import Path

from fettle import manifest
from fettle.adapters import boot_clock
from fettle.json_values import read_object

RECENT_S = 60.0
FAULTS_MAX = (
    3  # a fault may pass: a full disk, a moment without memory; the third in a minute does not
)
NAME = "faults.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def words(err: BaseException) -> str:
    """Say what an error is; of a full disk in its own words."""
    if isinstance(err, OSError) and err.errno in FULL:
        return f"the disk is full, so nothing can be written down ({err})"
    return f"{type(err).__name__}: {err}"


def record_fault(folder: Path, why: str) -> None:
    """Write down that the controller fails now."""
    times = [*_read(folder)[0], boot_clock.now_s()][-FAULTS_MAX:]
    manifest.write_json(folder / NAME, {"times": times, "why": why})


def recent_faults(folder: Path) -> tuple[int, str]:
    """Return how often it failed in the last RECENT_S, at most MOST are counted, and why."""
    times, why = _read(folder)
    return sum(0 <= boot_clock.now_s() - at < RECENT_S for at in times), why


def _read(folder: Path) -> tuple[list[float], str]:
    match read_object(folder / NAME):
        case {"times": [*times], "why": str(why)}:
            return [float(at) for at in times if isinstance(at, int | float)], why
    return [], ""
