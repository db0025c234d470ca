"""Router lease: the challenger meets users only in seconds that somebody who judges has let.

An empty file `lease-SECOND` (seconds since 1970) for each second until the lease runs out; nginx
looks for that of the present second at every request, so nothing has to be alive to end the lease.
Whoever judges renews it after each whole round. A step of the wall clock ends it until the next.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

PREFIX = "lease-"


def renew(folder: Path, *, lease_s: float, now_s: float) -> None:
    """Let the challenger meet users from now on for `lease_s`, and at most a second longer.

    On a full disk the lease is not renewed, and so runs out.
    """
    wanted = set(range(int(now_s) - 1, int(now_s + lease_s) + 1))  # a request may have begun before
    held = _held(folder)
    with suppress(OSError):
        for second in sorted(wanted - held):
            (folder / f"{PREFIX}{second}").touch()
    for second in held - wanted:
        (folder / f"{PREFIX}{second}").unlink(missing_ok=True)


def holds(folder: Path, *, now_s: float) -> bool:
    """Say whether the challenger may meet users in this second."""
    return (folder / f"{PREFIX}{int(now_s)}").exists()


def _held(folder: Path) -> set[int]:
    names = (path.name.removeprefix(PREFIX) for path in folder.glob(f"{PREFIX}*"))
    return {int(name) for name in names if re.fullmatch(r"\d{1,18}", name)}
