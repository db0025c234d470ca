"""Read the router's log as a stream of requests, by position, over its rotations.

A position counts bytes since the first line ever written. The current log is `attempts.log`; one
put aside is named after the position of its first byte (`attempts-000000000123.log`), so a reader
that was killed goes on where it stopped. A line is one request with one try or more:

    {"time": s since 1970, "id": hex, "arm": who was drawn, "weight": percent, "key": sticky key,
     "status": what the user got, "addr"/"statuses"/"times": one entry a try, in order,
     "predicted": classes answered, "inputs": measures of the input}
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Arm = Literal["champion", "challenger"]

CLIENT_GONE = 499  # nginx's own: the caller closed first, so no server is to blame
NO_ANSWER = 502  # nginx's own, also for a try that was refused, cut off or (504) too slow
SETTLE_S = 2.0  # nginx writes into a log put aside until its workers have opened the new one
READ_MAX_BYTES = 2**16  # about 180 requests a tick: a decision follows its evidence closely


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt at one server; `arm` None is a server that the routes do not know."""

    arm: Arm | None
    status: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class Logged:
    """One request as the router saw it; `key` is empty where it was drawn by its own id."""

    request_id: str
    time_s: float
    drawn: Arm
    weight_percent: float
    key: str
    status: int
    tries: tuple[Try, ...]
    predicted: tuple[int, ...]
    inputs: tuple[float, ...]


def aside(log: Path) -> Path:
    """Name the file that the current log becomes when it is put aside."""
    start = _files(log)[-1][0]
    return log.with_name(f"{log.stem}-{start:012d}{log.suffix}")


def may_rotate(log: Path) -> bool:
    """Tell whether the log put aside last is no longer written: until then positions move."""
    older = _files(log)[:-1]
    return not older or _settled(older[-1][1])


def end(log: Path) -> int:
    """Return the position after the last byte written."""
    start, path = _files(log)[-1]
    return start + (path.stat().st_size if path.is_file() else 0)


def read(log: Path, since: int, arms: Mapping[str, Arm]) -> tuple[list[Logged], int]:
    """Return the whole lines from `since` on, and where to go on.

    `arms` maps an address ("127.0.0.1:3101") to its arm. A torn last line waits for its end.
    """
    out: list[Logged] = []
    files = _files(log)
    for at, (start, path) in enumerate(files):
        following = files[at + 1][0] if at + 1 < len(files) else None
        if following is not None and since >= following:
            continue
        data = _bytes(path, since - start)
        whole = data[: data.rfind(b"\n") + 1]
        out += [parse(line, arms) for line in whole.splitlines()]
        since += len(whole)
        if following is None or len(data) == READ_MAX_BYTES or not _settled(path):
            break
        since = following
    return out, since


def recent(log: Path, most_bytes: int) -> int:
    """Return the position of the first whole line among the last `most_bytes`."""
    since = max(0, end(log) - most_bytes)
    for start, path in reversed(_files(log)):
        if start < since and path.is_file():
            with path.open("rb") as handle:
                handle.seek(since - start - 1)  # a line may begin right there
                handle.readline()
                return start + handle.tell()
    return since


def after(log: Path, since: int, request_id: str) -> int:
    """Return the position after the last line of this request from `since` on, else `since`."""
    found, needle = since, f'"id":"{request_id}"'.encode()
    for start, path in _files(log):
        if not path.is_file() or start + path.stat().st_size <= since:
            continue
        with path.open("rb") as handle:
            handle.seek(max(0, since - start))
            while line := handle.readline():
                if needle in line:
                    found = start + handle.tell()
    return found


def parse(line: bytes, arms: Mapping[str, Arm]) -> Logged:
    """Read one line of the log.

    Raises ValueError or KeyError when it is none: the log is ours alone.
    """
    doc: dict[str, Any] = json.loads(line)  # Any: JSON
    # ", " parts tries within one location, " : " those after a redirect inside nginx
    parts = [str(doc[name]).replace(" : ", ", ").split(", ") for name in _LISTS]
    tries = tuple(
        Try(arms.get(addr), _status(status), _milliseconds(seconds))
        for addr, status, seconds in zip(*parts, strict=True)
        if addr
    )
    return Logged(
        request_id=doc["id"],
        time_s=doc["time"],
        drawn=doc["arm"],
        weight_percent=doc["weight"],
        key=doc["key"],
        status=doc["status"],
        tries=tries,
        predicted=tuple(int(n) for n in doc["predicted"].split(",") if n.isdigit()),
        inputs=tuple(_numbers(doc["inputs"])),
    )


_LISTS = ("addr", "statuses", "times")


def _files(log: Path) -> list[tuple[int, Path]]:
    """List every file of the log with the position of its first byte, in order."""
    older = sorted(log.parent.glob(f"{log.stem}-*{log.suffix}"))
    found = [(int(path.stem.rpartition("-")[2]), path) for path in older]
    start = found[-1][0] + found[-1][1].stat().st_size if found else 0
    return [*found, (start, log)]


def _bytes(path: Path, offset: int) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as handle:
        handle.seek(max(0, offset))
        return handle.read(READ_MAX_BYTES)


def _settled(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > SETTLE_S


def _status(text: str) -> int:
    return int(text) if text.isdigit() else NO_ANSWER


def _milliseconds(text: str) -> float:
    try:
        return float(text) * 1000
    except ValueError:  # "-": it never answered
        return 0.0


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        return []
