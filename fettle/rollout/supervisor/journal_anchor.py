"""Journal anchor: a journal's length and seal, told to a place that its folder's owner cannot undo.

A journal is sealed by its own lines alone, so who may write its folder may seal another history.
FETTLE_JOURNAL_ANCHOR names where each order, each move, and once a minute what came between, is
told: a file (best append-only, `chattr +a`), an http(s) address, or `| COMMAND`. A line is

    {"rollout": …, "lines": 17, "tip": sha256 of line 17, "time_s": …}

`fettle canary replay` holds the journal to the lines of the file, or of the one that --anchors
names, as the address or the command kept them.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from fettle.errors import ProjectError, TamperedError, UserError
from fettle.rollout.supervisor import jsonl, notification

SAY = logging.getLogger("fettle.rollout.supervisor")
VARIABLE = "FETTLE_JOURNAL_ANCHOR"
EVERY_S = 60.0


def check(environ: Mapping[str, str], folder: Path) -> None:
    """Raise UserError for an anchor that holds nothing; `folder` is the supervisor's."""
    given = environ.get(VARIABLE)
    if not given:
        return
    wrong = ""
    if given.startswith("|"):
        notification.check({notification.COMMAND: given[1:]})
    elif "://" in given:
        notification.check({notification.WEBHOOK: given})
    elif not Path(given).is_absolute():
        wrong = "a path that begins at no root"
    elif Path(given).resolve().is_relative_to(folder.resolve().parents[1]):
        wrong = "a file of this project, whose owner may change both"
    elif not Path(given).parent.is_dir():
        wrong = f"no folder {Path(given).parent}"
    if wrong:
        raise UserError(
            f"{VARIABLE} names no anchor",
            got=f"{given}: {wrong}",
            rule="an absolute path outside of the project, http(s)://…, or | COMMAND",
            fix=f"mend it, or unset {VARIABLE}: then a re-sealed journal replays",
        )


class JournalAnchor:
    """Tells one rollout's anchors; a place that cannot be told is said in the log, once each."""

    def __init__(self, rollout: str, canary: Path) -> None:
        self._rollout, self._canary = rollout, canary
        self._told = 0
        self._next = 0.0
        self._failed = ""

    def tell(self, lines: int, tip: str, *, at_once: bool) -> None:
        """Tell how long the journal is, and its seal; at most every EVERY_S unless `at_once`."""
        given = os.environ.get(VARIABLE, "")
        now = time.monotonic()
        if not given or lines == self._told or not (at_once or now >= self._next):
            return
        self._told, self._next = lines, now + EVERY_S
        doc = {"rollout": self._rollout, "lines": lines, "tip": tip, "time_s": time.time()}
        if given.startswith("|"):
            notification.tell_to(self._canary, doc, command=given[1:])
        elif urlsplit(given).scheme in ("http", "https"):
            notification.tell_to(self._canary, doc, webhook=given)
        else:
            try:
                with Path(given).open("ab") as out:
                    out.write(json.dumps(doc).encode() + b"\n")
                    out.flush()
                    os.fsync(out.fileno())
                self._failed = ""
            except OSError as err:
                if self._failed != str(err):
                    SAY.error("unanchored rollout=%s why=%r", self._rollout, str(err))
                self._failed = str(err)


def verify(journal: Path, rollout: str, anchors: Path) -> int:
    """Hold a journal to its anchors; return how many there are.

    Raises ProjectError without the file, TamperedError where one does not hold.
    """
    if not anchors.is_file():
        raise ProjectError(
            "there is no file of anchors",
            got=str(anchors),
            fix=f"name the one that {VARIABLE} fills, or what its address or command kept",
        )
    lines = journal.read_bytes().splitlines()
    told, _ = jsonl.read(anchors, 0, take=dict[str, object])
    found = [doc for doc in told if doc.get("rollout") == rollout]
    for doc in found:
        count, tip = doc.get("lines"), doc.get("tip")
        if not isinstance(count, int) or not 0 < count <= len(lines):
            got = f"{len(lines)} lines, of which {count} were anchored"
        elif sha256(lines[count - 1]).hexdigest() != tip:
            got = f"another line {count} than the one that was anchored"
        else:
            continue
        raise TamperedError(
            f"{journal} is not the journal that was anchored in {anchors}",
            got=got,
            rule="a journal only grows; its seal was told outside as it did",
            fix="restore the file from a copy; what was decided then is not what it says now",
        )
    return len(found)
