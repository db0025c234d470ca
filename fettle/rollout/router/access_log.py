r"""Reverse proxy access log: read as a stream of requests, by position, over its rotations.

A position counts bytes since the first line ever written. The current log is `attempts.log`; one
put aside is named after the position of its first byte (`attempts-000000000123.log`), so a reader
that was killed goes on where it stopped. A line is one request with one try or more:

    {"time": s since 1970, "id": hex, "arm": who was drawn, "weight": percent, "key": sticky key,
     "status": what the user got, "addr"/"statuses"/"times": one entry a try, in order,
     "predicted": classes answered, "inputs": measures of the input,
     "own": ms that the last release to answer says it took, finer than the router's whole ones}

What a caller sends stands in a line (the sticky key), so nginx writes every byte that is no plain
ASCII as \xHH. A line that is no such line (torn by a full disk, glued to the next, alien bytes) is
left out, and said in `bad`: what to make of too many is the caller's business.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fettle.json_values import JsonObject

Arm = Literal["champion", "challenger"]

NO_ANSWER = 502  # nginx's own, also for a try that was refused, cut off or (504) too slow
SETTLE_S = 2.0  # nginx writes into a log put aside until its workers have opened the new one
# About 180 requests a tick: a decision follows its evidence closely. A longer line is a bad one.
READ_MAX_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class ProxyAttempt:
    """One attempt at one server; `arm` None is a server that the routes do not know."""

    arm: Arm | None
    status: int
    latency_ms: float


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the router saw it; `key` is empty where it was drawn by its own id."""

    request_id: str
    time_s: float
    drawn: Arm
    weight_percent: float
    key: str
    status: int
    tries: tuple[ProxyAttempt, ...]
    predicted: tuple[int, ...]
    inputs: tuple[float, ...]
    own_ms: float | None = None  # of the last try; None where the release does not say


def rotated_path(log: Path) -> Path:
    """Name the file that the current log becomes when it is put aside."""
    start = _files(log)[-1][0]
    return log.with_name(f"{log.stem}-{start:012d}{log.suffix}")


def may_rotate(log: Path) -> bool:
    """Tell whether the log put aside last is no longer written: until then positions move."""
    older = _files(log)[:-1]
    return not older or _settled(older[-1][1])


def drop_oldest(log: Path, kept: int) -> None:
    """Delete what was put aside but the last `kept` files; positions stay what they are."""
    for _, path in _files(log)[: -1 - kept]:
        path.unlink(missing_ok=True)


def end_position(log: Path) -> int:
    """Return the position after the last byte written."""
    start, path = _files(log)[-1]
    return start + (path.stat().st_size if path.is_file() else 0)


def read(
    log: Path, since: int, arms: Mapping[str, Arm], *, bad: list[str] | None = None
) -> tuple[list[LoggedRequest], int]:
    """Return the whole lines from `since` on, and where to go on.

    `arms` maps an address ("127.0.0.1:3101") to its arm. A torn last line waits for its end. What
    is wrong with each line that was left out is added to `bad`.
    """
    bad = [] if bad is None else bad
    out: list[LoggedRequest] = []
    files = _files(log)
    for index, (start, path) in enumerate(files):
        following = files[index + 1][0] if index + 1 < len(files) else None
        if following is not None and since >= following:
            continue
        since = max(since, start)  # what lay before was deleted
        data = _bytes(path, since - start)
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == READ_MAX_BYTES:
            bad.append(f"longer than {READ_MAX_BYTES} bytes")
            since += len(data)  # its rest is a bad line as well
            break
        for line in whole.split(b"\n")[:-1]:
            try:
                out.append(parse(line, arms))
            except ValueError as err:
                bad.append(str(err))
        since += len(whole)
        if following is None or len(data) == READ_MAX_BYTES or not _settled(path):
            break
        since = following
    return out, since


def recent(log: Path, most_bytes: int) -> int:
    """Return the position of the first whole line among the last `most_bytes`."""
    since = max(0, end_position(log) - most_bytes)
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


def parse(line: bytes, arms: Mapping[str, Arm]) -> LoggedRequest:
    """Read one line of the log.

    Raises ValueError saying what is wrong with it when it is none.
    """
    doc = _document(line)
    texts = {name: _text(doc, name) for name in ("id", "key", "predicted", "inputs", *_LISTS)}
    if not _PRINTABLE.fullmatch(texts["id"]):
        raise ValueError("id is no request's")
    if doc.get("arm") not in ("champion", "challenger"):
        raise ValueError("arm is neither champion nor challenger")
    status = doc.get("status")
    if not isinstance(status, int) or isinstance(status, bool) or not 0 <= status <= 999:
        raise ValueError("status is no HTTP status")
    # ", " parts tries within one location, " : " those after a redirect inside nginx
    parts = [texts[name].replace(" : ", ", ").split(", ") for name in _LISTS]
    if len({len(part) for part in parts}) != 1:
        raise ValueError("addr, statuses and times are not of one length")
    tries = tuple(
        ProxyAttempt(arms.get(addr), _status(tried), _milliseconds(seconds))
        for addr, tried, seconds in zip(*parts, strict=True)
        if addr not in ("", NOTHING)
    )
    return LoggedRequest(
        request_id=texts["id"],
        time_s=_number(doc, "time", math.inf),
        drawn="champion" if doc["arm"] == "champion" else "challenger",
        weight_percent=_number(doc, "weight", 100.0),
        key=texts["key"],
        status=status,
        tries=tries,
        predicted=tuple(int(n) for n in texts["predicted"].split(",") if _CLASS.fullmatch(n)),
        inputs=tuple(_numbers(texts["inputs"])),
        own_ms=_own(doc.get("own")),
    )


_LISTS = ("addr", "statuses", "times")
NOTHING = "-"  # nginx's own, for a variable that has no value
_PRINTABLE = re.compile(r"[!-~]{1,128}")
_OWN = re.compile(r"[0-9]{1,9}\.[0-9]{3}")
_CLASS = re.compile(r"[0-9]{1,9}")
_ESCAPED = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|.)")


def _document(line: bytes) -> JsonObject:
    r"""Read a line's JSON, whose strings may hold nginx's \xHH, a byte each."""
    if not line.isascii():
        raise ValueError("it has bytes that are no ASCII")
    text = _ESCAPED.sub(lambda got: f"\\u00{got[1]}" if got[1] else got[0], line.decode())
    try:
        doc = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise ValueError("it is no JSON") from err
    if not isinstance(doc, dict):
        raise ValueError("it is no JSON object")
    if not all(_encodable(value) for value in doc.values()):
        raise ValueError("it has half a character")
    return doc


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _encodable(value: object) -> bool:
    r"""Tell whether a text can be written again: \ud800 alone cannot."""
    return not isinstance(value, str) or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _text(doc: JsonObject, name: str) -> str:
    value = doc.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text")
    return value


def _number(doc: JsonObject, name: str, most: float) -> float:
    value = doc.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number <= most or math.isinf(number):
        raise ValueError(f"{name} is out of range")
    return value


def _files(log: Path) -> list[tuple[int, Path]]:
    """List every file of the log with the position of its first byte, in order."""
    older = sorted(log.parent.glob(f"{log.stem}-{'[0-9]' * 12}*{log.suffix}"))
    named = [(path.stem.rpartition("-")[2], path) for path in older]
    found = [(int(number), path) for number, path in named if number.isdecimal()]
    start = found[-1][0] + found[-1][1].stat().st_size if found else 0
    return [*found, (start, log)]


def _bytes(path: Path, offset: int) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as handle:
        handle.seek(max(0, offset))
        return handle.read(READ_MAX_BYTES)


def _settled(path: Path) -> bool:
    # one of the future was written before the wall clock stepped back
    return abs(time.time() - path.stat().st_mtime) > SETTLE_S


def _status(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{3}", text) else NO_ANSWER


def _milliseconds(text: str) -> float:
    return float(text) * 1000 if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text) else 0.0  # or "-"


def _own(text: object) -> float | None:
    """Read a release's own milliseconds: its header, so it may hold anything."""
    return float(text) if isinstance(text, str) and _OWN.fullmatch(text) else None


def _numbers(text: str) -> list[float]:
    """Read the measures of an input: the release's own header, so it may hold anything."""
    try:
        found = [float(part) for part in text.split(",") if part]
    except ValueError:
        return []
    return found if all(map(math.isfinite, found)) else []
