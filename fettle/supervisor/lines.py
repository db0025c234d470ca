"""Append records to a file that outlives a kill, and read them on from a position in bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def append(path: Path, docs: Iterable[Mapping[str, Any]], *, durable: bool = False) -> None:
    """Append one line a record; with `durable` it is on the disk when this returns."""
    with path.open("ab") as handle:
        handle.write(b"".join(json.dumps(doc, sort_keys=True).encode() + b"\n" for doc in docs))
        if durable:
            handle.flush()
            os.fsync(handle.fileno())


def read(path: Path, since: int) -> tuple[list[dict[str, Any]], int]:  # Any: JSON
    """Return the whole lines after `since`, and where to go on; a torn last line waits."""
    if not path.is_file():
        return [], since
    with path.open("rb") as handle:
        handle.seek(since)
        data = handle.read()
    whole = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], since + len(whole)


def skip(path: Path, count: int) -> int:
    """Return the position after the first `count` lines."""
    if not count or not path.is_file():
        return 0
    with path.open("rb") as handle:
        for _ in range(count):
            handle.readline()
        return handle.tell()
