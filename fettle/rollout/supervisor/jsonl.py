"""JSON Lines files: appended so that a kill loses nothing, read on from a position in bytes.

A line may be torn by a full disk or a power cut: it is left out and said in `bad`, and what is
appended next begins a line of its own.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from fettle.json_values import JsonObject

Record = TypeVar("Record")


def append(path: Path, docs: Iterable[Mapping[str, object]], *, durable: bool = False) -> None:
    """Append one line a record; with `durable` it is on the disk when this returns."""
    data = b"".join(json.dumps(doc, sort_keys=True).encode() + b"\n" for doc in docs)
    with path.open("a+b") as handle:
        if data and handle.tell():
            handle.seek(-1, os.SEEK_END)
            data = data if handle.read(1) == b"\n" else b"\n" + data
        handle.write(data)
        if durable:
            handle.flush()
            os.fsync(handle.fileno())


def read(
    path: Path,
    since: int,
    *,
    take: Callable[[JsonObject], Record] = dict,  # type: ignore[assignment]  # as it is
    bad: list[str] | None = None,
) -> tuple[list[Record], int]:
    """Return the whole lines after `since`, each by `take`, and where to go on.

    A torn last line waits. What is wrong with a line that was left out is added to `bad`; `take`
    refuses one by ValueError, TypeError or KeyError.
    """
    if not path.is_file():
        return [], since
    with path.open("rb") as handle:
        handle.seek(since)
        data = handle.read()
    whole = data[: data.rfind(b"\n") + 1]
    found = []
    for line in whole.split(b"\n")[:-1]:
        try:
            found.append(_record(line, take))
        except ValueError as err:
            if bad is not None:
                bad.append(str(err))
    return found, since + len(whole)


def skip(path: Path, count: int, *, take: Callable[[JsonObject], object] = dict) -> int:
    """Return the position after the first `count` lines that `read` would give."""
    if not count or not path.is_file():
        return 0
    with path.open("rb") as handle:
        while count and (line := handle.readline()):
            try:
                _record(line, take)
            except ValueError:
                continue
            count -= 1
        return handle.tell()


def is_time(value: object) -> bool:
    """Tell whether a field holds seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _record(line: bytes, take: Callable[[JsonObject], Record]) -> Record:
    try:
        doc = json.loads(line)
        if not isinstance(doc, dict):
            raise ValueError("it is no JSON object")
        return take(doc)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as err:
        raise ValueError(f"{type(err).__name__}: {err}") from err
