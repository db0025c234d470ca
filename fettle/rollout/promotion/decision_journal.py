"""Hash-chained, append-only journal: what was seen and decided, each line sealed by the last.

    {"n": 0, "prev": "000…", "begin": {…}, "version": 4}
    {"n": 1, "prev": sha256 of line 0, "event": {…}, "decision": {…}}

A line is on the disk (fsync) before its actions are done. `replay` folds the events again and
compares every decision. A cut last line is a crash while writing: what it decided was never done,
`recover` drops it. Anything else that does not fit is refused, with its line. The file's length
and seal stand in NAME.tip beside it, so that lines lost from its end are missed too; it is written
after the actions, which wait for one fsync and not for two: the journal may be one line ahead.

A replay is asked only of journals of this VERSION: another version's code may have decided, or
worded its reasons, otherwise. `last_state` reads where a rollout stood without judging it again.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

from fettle.errors import BusyError, ProjectError, TamperedError, UserError
from fettle.rollout.promotion import event_serialization
from fettle.rollout.promotion.decision_engine import Begin, Decision, Engine, Event
from fettle.rollout.promotion.event_serialization import Json

FIRST = "0" * 64
# Raise it with every change of a gate, of a reason's words or of the format.
# 1: until 429 counted as a failure; a first line without a version. 2: until spans of a step were
# compared (span_test.py) and each image was one pair at most. 3: until an error took a paused
# challenger its users. 4: since then.
VERSION = 4


class DecisionJournal:
    """Append to one rollout's journal; one writer at a time."""

    def __init__(self, path: Path, *, lines: int, tip: str) -> None:
        self.path = path
        self._lines, self._tip = lines, tip
        self._sealed = lines

    @classmethod
    def create(cls, path: Path, begin: Begin) -> DecisionJournal:
        """Start a journal. Raises BusyError where the file exists."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.open("x").close()
        except FileExistsError as err:
            raise BusyError(
                "this rollout already has a journal",
                got=str(path),
                rule="a journal is never written over",
                fix="resume it, or start a rollout with a new id",
            ) from err
        made = cls(path, lines=0, tip=FIRST)
        made._append({"begin": event_serialization.begin_to_json(begin), "version": VERSION})
        made.seal()
        return made

    @property
    def length_and_seal(self) -> tuple[int, str]:
        """How many lines were written, and the seal of the last."""
        return self._lines, self._tip

    def write(self, event: Event, decision: Decision) -> None:
        """Append a decision; when this returns it is on the disk. `seal` it once it is acted on."""
        self.seal()  # never two lines ahead
        doc = {
            "event": event_serialization.event_to_json(event),
            "decision": event_serialization.decision_to_json(decision),
        }
        self._append(doc)

    def seal(self) -> None:
        """Write down how long the journal is, unless that is written already."""
        if self._sealed != self._lines:
            _seal(self.path, self._lines, self._tip)
            self._sealed = self._lines

    def _append(self, doc: Json) -> None:
        line = _dump({"n": self._lines, "prev": self._tip, **doc})
        with self.path.open("ab") as out:
            out.write(line + b"\n")
            out.flush()
            os.fsync(out.fileno())
        self._lines, self._tip = self._lines + 1, sha256(line).hexdigest()


def replay(path: Path) -> tuple[Engine, list[Decision]]:
    """Fold a journal again and return the engine as it stands, with every decision re-derived.

    Raises TamperedError, with the line, where the chain or a decision does not hold, UserError for
    a journal of another version.
    """
    engine, decisions, _ = _fold(path)
    return engine, decisions


def recover(path: Path) -> tuple[Engine, list[Decision], DecisionJournal]:
    """Drop a last line that a crash cut, replay the rest, and return the journal to go on with."""
    raw = _read(path)
    whole = raw[: raw.rfind(b"\n") + 1]
    if whole != raw:
        with path.open("r+b") as out:
            out.truncate(len(whole))
            os.fsync(out.fileno())
    engine, decisions, tip = _fold(path)
    _seal(path, len(decisions) + 1, tip)
    return engine, decisions, DecisionJournal(path, lines=len(decisions) + 1, tip=tip)


def last_state(path: Path) -> str | None:
    """Return the phase that the last whole line states; None where no line states one."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return str(json.loads(line)["decision"]["state"]["phase"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return None


def orders(path: Path) -> list[dict[str, str]]:
    """List what people ordered, the start first: {"order", "who", "why"}; of a whole journal."""
    found = []
    for line in path.read_bytes().splitlines():
        doc = json.loads(line)
        if "begin" in doc:
            found.append({"order": "start", **doc["begin"]["by"]})
        elif "ordered" in doc["event"]:
            event = doc["event"]
            found.append({"order": event["ordered"], "who": event["who"], "why": event["why"]})
    return found


def _fold(path: Path) -> tuple[Engine, list[Decision], str]:
    docs, tip = _chain(path)
    try:
        engine = Engine(event_serialization.begin_from_json(docs[0]["begin"]))
    except Exception as err:  # whatever a stranger's first line makes of our types
        raise _broken(path, 1, f"it is no rollout's beginning ({err!r})") from err
    decisions = []
    for number, doc in enumerate(docs[1:], start=2):
        try:
            decision = engine.decide(event_serialization.event_from_json(doc["event"]))
        except Exception as err:  # as above
            raise _broken(path, number, f"it is no event of a rollout ({err!r})") from err
        again = json.loads(_dump(event_serialization.decision_to_json(decision)))
        if again != doc["decision"]:
            keys = sorted(k for k in again if again[k] != doc["decision"].get(k))
            raise TamperedError(
                f"{path.name}, line {number}: the decision does not follow from the events",
                got=f"another {', '.join(keys)}",
                rule="a replay gives every decision again, bit for bit",
                fix="the journal, or the code since it was written, was changed: "
                "replay it with the release of fettle that wrote it",
            )
        decisions.append(decision)
    return engine, decisions, tip


def _chain(path: Path) -> tuple[list[Json], str]:
    """Return the lines and the last one's seal, each checked against the one before."""
    raw = _read(path)
    if not raw.endswith(b"\n"):
        raise _broken(path, raw.count(b"\n") + 1, "the line is cut")
    docs: list[Json] = []
    tip = FIRST
    for number, line in enumerate(raw.splitlines(), start=1):
        try:
            doc = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise _broken(path, number, "the line is no JSON") from err
        if number == 1 and isinstance(doc, dict):
            _check_version(path, doc.get("version", 1))  # first: its lines may be sealed otherwise
        wanted = {"n", "prev", "begin"} if number == 1 else {"n", "prev", "event", "decision"}
        if (
            not isinstance(doc, dict)
            or set(doc) - ({"version"} if number == 1 else set()) != wanted
        ):
            raise _broken(path, number, "the line has other fields than a journal's")
        if doc["n"] != number - 1 or doc["prev"] != tip:
            raise _broken(path, number, "it does not carry the seal of the line before")
        docs.append(doc)
        tip = sha256(line).hexdigest()
    _check_length(path, docs, tip)
    return docs, tip


def _check_version(path: Path, found: object) -> None:
    if found != VERSION:
        raise UserError(
            f"{path} is a journal of another version",
            got=f"version {found}",
            rule=f"this fettle replays version {VERSION}: another may have judged otherwise",
            fix="replay it with the release of fettle that wrote it; what serves, serves on",
        )


def _seal(path: Path, lines: int, tip: str) -> None:
    """Write down how long the journal is; replaced whole, so never half-written."""
    draft = path.with_suffix(".tip.new")
    with draft.open("w") as out:
        out.write(f"{lines} {tip}\n")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path.with_suffix(".tip"))


def _check_length(path: Path, docs: list[Json], tip: str) -> None:
    """Refuse a journal that has lost lines from its end."""
    try:
        lines, seal = path.with_suffix(".tip").read_text().split()
    except (FileNotFoundError, ValueError) as err:
        if len(docs) == 1:
            return  # a crash after the very first line
        raise _broken(path, len(docs), f"{path.stem}.tip beside it is missing") from err
    ahead = len(docs) - int(lines) if lines.isdigit() else -1
    last = docs[-1]["prev"] if ahead == 1 else tip
    if ahead not in (0, 1) or last != seal:
        raise _broken(path, len(docs) + 1, f"{lines} lines were written, {len(docs)} are left")


def _read(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except FileNotFoundError as err:
        raise ProjectError(
            "there is no journal", got=str(path), fix="`fettle canary start` begins one"
        ) from err
    if not raw:
        raise _broken(path, 1, "the journal is empty")
    return raw


def _broken(path: Path, number: int, what: str) -> TamperedError:
    return TamperedError(
        f"{path.name}, line {number}: {what}",
        rule="each line carries the sha256 of the one before, so none can be changed or lost",
        fix="restore the file from a copy; traffic stays where it is until then",
    )


def _dump(doc: Json) -> bytes:
    return json.dumps(doc, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
