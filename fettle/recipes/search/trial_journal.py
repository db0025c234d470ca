"""Trial journal, one line of JSON an event, on disk before it counts: to resume a killed search.

A line is appended and fsynced at once. A kill or a full disk can leave at most one torn line at
the end; it is cut off, so that the file always reads. The first line names the search it is of.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Required, TypedDict

from pydantic import JsonValue

from fettle.errors import ProjectError


class JournalLine(TypedDict, total=False):
    """One line: of kind search (its identity), result or moves, each of a recipe by its key.

    `clock` is what the search's clock knew after a result.
    """

    kind: Required[str]
    identity: str
    recipe: str
    steps: list[dict[str, JsonValue]]
    result: dict[str, object]
    clock: dict[str, float]
    moves: list[dict[str, object]]


class TrialJournal:
    """Events of one search in `path`; `identity` is whatever its decisions depend on."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.events, self._end = _read(path)
        header: JournalLine = {"kind": "search", "identity": identity}
        if not self.events:
            self.append(header)
        elif self.events[0] != header:
            raise ProjectError(
                f"{path} is the journal of another search",
                got=json.dumps(self.events[0].get("identity")),
                rule=f"this one is {json.dumps(identity)}",
                fix="delete that file: the search starts over",
            )

    def append(self, event: JournalLine) -> None:
        """Add one event; on any OSError the file is as it was before."""
        line = (json.dumps(event, sort_keys=True, allow_nan=False) + "\n").encode()
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            try:
                _write(handle, line, self._end)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, self._end)
                raise
        finally:
            os.close(handle)
        self._end += len(line)
        self.events.append(event)


def _read(path: Path) -> tuple[list[JournalLine], int]:
    """Return the whole lines and their length; cut off what a kill left behind them."""
    if not path.is_file():
        return [], 0
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    return [json.loads(line) for line in data[:end].splitlines()], end


def _write(handle: int, line: bytes, offset: int) -> None:
    """Write all of `line` at an offset: a disk that fills up takes only a part at first."""
    done = 0
    while done < len(line):
        done += os.pwrite(handle, line[done:], offset + done)
