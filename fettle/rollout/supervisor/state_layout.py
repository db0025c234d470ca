"""State layout of the supervisor: its files, and those that its processes speak through.

.fettle/canary/
serving.json         what serves: the pinned releases, the address, the running rollout
problems.json        what the controller cannot do now, for who watches; gone when all is well
lease                touched by the controller at every tick; the watchdog looks at its age
watchdog.json, controller.json   their pids
inbox/N.json         orders of `fettle canary …`, taken in order, deleted when obeyed
outbox/N.json        what became of them; N.bad is an order that could not be read
rollouts/ID/         journal.jsonl, and status.json for who watches
router/              nginx: its configuration, logs, kill switch
arms/RELEASE/        a served release: pid, port, log

serving.json and each order carry a version. What another version wrote is refused in words, an
order alone; of a newer serving.json what this version knows is taken, so that service goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from fettle import manifest
from fettle.errors import ProjectError, UserError
from fettle.json_values import JsonObject
from fettle.rollout.promotion.rollout_state import OVER, Phase, Verb, is_over

LEASE_S = 10.0  # before a plan says otherwise
VERSION = 1  # of serving.json and of orders; a document without one is of version 1
ORDER_S = 60.0  # an order older than this is not obeyed, unless it says otherwise
VERBS = ("start", *(verb.value for verb in Verb))


@dataclass(frozen=True, slots=True)
class PinnedRelease:
    """A pinned release: 12 hex digits of its digest, its Bento, its folder and model version."""

    release: str
    tag: str
    folder: str
    version: str | None = None

    @classmethod
    def of(cls, doc: object) -> Self:
        """Read it from JSON. Raises ValueError when it is no release."""
        known = {one.name for one in fields(cls)}
        if not isinstance(doc, dict) or not known - {"version"} <= set(doc):
            raise ValueError("it names no release, tag and folder")
        made = cls(**{name: value for name, value in doc.items() if name in known})
        if not all(isinstance(one, str) for one in (made.release, made.tag, made.folder)):
            raise ValueError("a release, its tag and its folder are texts")
        return made


@dataclass(frozen=True, slots=True)
class ServingState:
    """What the supervisor serves. `rollout` names the rollout that is watched, over or not.

    `state` is how that rollout ended (OVER), None while it is under way: so what serves is known
    without its journal.
    """

    host: str
    port: int
    control: int
    feedback: int
    champion: PinnedRelease | None = None
    challenger: PinnedRelease | None = None
    rollout: str | None = None
    lease_s: float = LEASE_S
    certificate: str | None = None
    certificate_key: str | None = None
    state: str | None = None

    @property
    def promoted(self) -> bool:
        """Whether the challenger has taken the champion's place."""
        return self.state == Phase.PROMOTED and self.challenger is not None

    @property
    def url(self) -> str:
        """The public address, as a client writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class StateLayout:
    """The supervisor's folder."""

    folder: Path

    @property
    def router(self) -> Path:
        """The router's folder."""
        return self.folder / "router"

    @property
    def arms(self) -> Path:
        """The folder of the served releases."""
        return self.folder / "arms"

    @property
    def inbox(self) -> Path:
        """The folder of orders."""
        return self.folder / "inbox"

    @property
    def outbox(self) -> Path:
        """The folder of answers to orders."""
        return self.folder / "outbox"

    @property
    def lease(self) -> Path:
        """The file whose age says whether the controller lives."""
        return self.folder / "lease"

    @property
    def watchdog(self) -> Path:
        """The watchdog's pid file."""
        return self.folder / "watchdog.json"

    @property
    def earlier_watchdog(self) -> Path:
        """The watchdog's pid file as earlier versions name it: one of them may still run."""
        return self.folder / "warden.json"

    @property
    def controller(self) -> Path:
        """The controller's pid file."""
        return self.folder / "controller.json"

    def rollout(self, rollout_id: str) -> Path:
        """Return the folder of one rollout."""
        return self.folder / "rollouts" / rollout_id

    def rollouts(self) -> list[str]:
        """List the rollouts, oldest first: their names begin with their time."""
        return sorted(path.name for path in (self.folder / "rollouts").glob("*") if path.is_dir())

    def serving(self) -> ServingState | None:
        """Read what serves, or None before the first time.

        Raises ProjectError when the file is not what `write_serving` writes.
        """
        path = self.folder / "serving.json"
        if not path.is_file():
            return None
        try:
            return _serving(json.loads(path.read_text()), self)
        except (ValueError, TypeError, KeyError, RecursionError) as err:
            raise ProjectError(
                f"{path} does not say what serves",
                got=str(err),
                rule="it is written by `fettle canary` alone",
                fix="restore it; or `fettle canary stop`, delete it, and begin again with "
                "`fettle canary start`",
            ) from err

    def write_serving(self, serving: ServingState) -> None:
        """Write what serves, in one atomic step."""
        manifest.write_json(self.folder / "serving.json", {"version": VERSION, **asdict(serving)})

    def active(self) -> str | None:
        """Return the rollout that is under way, None when none is.

        A serving.json that cannot be read may hide one.
        """
        try:
            serving = self.serving()
        except ProjectError:
            return "unreadable"
        if serving is None or serving.rollout is None:
            return None
        return None if serving.state in OVER else serving.rollout

    def stated(self, rollout_id: str) -> str | None:
        """Return the state that a rollout's status.json says, None where it says none."""
        try:
            doc = json.loads((self.rollout(rollout_id) / "status.json").read_text())
            return str(doc["state"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def problems(self) -> dict[str, str]:
        """Read what the controller cannot do now, by its subject; empty when all is well."""
        try:
            doc = json.loads((self.folder / "problems.json").read_text())
            return {str(name): str(text) for name, text in doc.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            return {}

    def write_problems(self, found: Mapping[str, str]) -> None:
        """Say what the controller cannot do now."""
        path = self.folder / "problems.json"
        if found:
            manifest.write_json(path, dict(found))
        else:
            path.unlink(missing_ok=True)

    def renew_lease(self) -> None:
        """Say that the controller lives."""
        self.lease.touch()

    def lease_age_s(self) -> float:
        """Return the age of the lease; infinite when there is none."""
        try:
            return time.time() - self.lease.stat().st_mtime
        except FileNotFoundError:
            return float("inf")


def _serving(doc: object, place: StateLayout) -> ServingState:
    """Read serving.json: of a version that knows more, what this one knows."""
    known = {one.name for one in fields(ServingState)}
    if not isinstance(doc, dict):
        raise ValueError("no object")
    made = {name: value for name, value in doc.items() if name in known}
    for arm in ("champion", "challenger"):
        made[arm] = PinnedRelease.of(made[arm]) if made.get(arm) else None
    for name in ("port", "control", "feedback"):
        if not isinstance(made.get(name), int):
            raise ValueError(f"{name} is no port")
    if made.get("state") is None and made.get("rollout"):  # said there before it is said here
        stated = place.stated(str(made["rollout"])) or ""
        made["state"] = stated if is_over(stated) else None
    return ServingState(**made)


def submit_order(
    place: StateLayout,
    order: Mapping[str, object],
    *,
    timeout_s: float = ORDER_S,
) -> str:
    """Put an order into the inbox; return its name. Names sort by time.

    It is not obeyed any more once `timeout_s` have passed: then nobody waits for it.
    """
    place.inbox.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{os.getpid()}"
    doc = {"version": VERSION, "until_s": time.time() + timeout_s, **order}
    manifest.write_json(place.inbox / f"{name}.json", doc)
    return name


def withdraw_order(place: StateLayout, name: str) -> None:
    """Take an order back, unless it is being obeyed."""
    (place.inbox / f"{name}.json").unlink(missing_ok=True)


def pending_orders(place: StateLayout) -> Iterator[tuple[str, JsonObject]]:
    """Read the orders in the inbox, oldest first; `obeyed` takes one away.

    What is no order, or too old to be obeyed, is answered here and put aside as outbox/NAME.bad.
    """
    for path in sorted(place.inbox.glob("*.json")):
        try:
            doc = _order(path)
        except UserError as err:
            place.outbox.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                path.rename(place.outbox / f"{path.stem}.bad")
            answer_order(place, path.stem, {"error": str(err), "kind": err.kind})
            continue
        if doc is not None:
            yield path.stem, doc


def _order(path: Path) -> JsonObject | None:
    """Read one order; None when it was taken back meanwhile."""
    try:
        doc = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as err:
        raise UserError("an order cannot be read", got=str(err), fix="give it again") from err
    if not isinstance(doc, dict) or doc.get("verb") not in VERBS:
        raise UserError(
            "an order cannot be understood",
            got=json.dumps(doc)[:80],
            rule=f"its verb is one of {', '.join(VERBS)}",
            fix="give it again by `fettle canary`",
        )
    version = doc.get("version", VERSION)
    if version != VERSION:
        raise UserError(
            "the supervisor does not understand this order",
            got=f"one of version {version}",
            rule=f"it takes version {VERSION}",
            fix="`fettle canary stop`, then `fettle serve`, start it in the version that orders",
        )
    until_s = doc.get("until_s", float("inf"))
    if not isinstance(until_s, int | float) or time.time() > until_s:
        raise UserError(
            f"the order to {doc['verb']} came too late",
            got=f"one that was to be obeyed before {until_s}",
            rule="an order that nobody waits for any more is not obeyed",
            fix="give it again",
        )
    return doc


def answer_order(place: StateLayout, name: str, answer: Mapping[str, object]) -> None:
    """Answer an order, then take it out of the inbox: killed between, it is obeyed again."""
    place.outbox.mkdir(parents=True, exist_ok=True)
    manifest.write_json(place.outbox / f"{name}.json", answer)
    with suppress(FileNotFoundError):
        (place.inbox / f"{name}.json").unlink()


def await_answer(place: StateLayout, name: str, *, timeout_s: float) -> JsonObject | None:
    """Wait for what became of an order; None when nobody obeyed in time."""
    path = place.outbox / f"{name}.json"
    deadline = time.monotonic() + timeout_s
    while not path.is_file():
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    doc: JsonObject = json.loads(path.read_text())
    path.unlink()
    return doc
