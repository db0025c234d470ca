"""State layout of the supervisor: its files, and those that its processes speak through.

.fettle/canary/
serving.json         what serves: the pinned releases, the address, the running rollout; of
                     serving.copy.json where it is damaged
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
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Self

from fettle import manifest
from fettle.errors import ProjectError
from fettle.rollout.promotion.rollout_state import OVER, Phase, is_over

LEASE_S = 10.0  # before a plan says otherwise
VERSION = 1  # of serving.json and of orders; a document without one is of version 1


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
        path, copy = self._serving_files()
        refusal: Exception | None = None
        for file in (path, copy):
            try:
                if file.is_file():
                    return _serving(json.loads(file.read_text()), self)
            except (ValueError, TypeError, KeyError, RecursionError) as err:
                refusal = refusal or err
        if refusal is None:
            return None
        raise ProjectError(
            f"{path} does not say what serves",
            got=str(refusal),
            rule="it is written by `fettle canary` alone",
            fix=f"restore it; or `fettle canary stop`, delete it and {copy.name}, and begin again "
            "with `fettle canary start`",
        ) from refusal

    def write_serving(self, serving: ServingState) -> None:
        """Write what serves, in one atomic step each for the file and its copy."""
        for file in self._serving_files():
            manifest.write_text(file, _sealed(serving))

    def keep_serving(self, serving: ServingState) -> bool:
        """Write what serves again where a file of it is damaged or gone; say whether one was."""
        text, damaged = _sealed(serving), False
        for file in self._serving_files():
            try:
                whole = file.read_bytes() == text.encode()
            except OSError:
                whole = False
            if not whole:
                manifest.write_text(file, text)
                damaged = True
        return damaged

    def _serving_files(self) -> tuple[Path, Path]:
        return self.folder / "serving.json", self.folder / "serving.copy.json"

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


def _sealed(serving: ServingState) -> str:
    """Return the text of serving.json: `seal` shows a changed byte that is JSON still."""
    doc = {"version": VERSION, **asdict(serving)}
    return json.dumps({**doc, "seal": _seal(doc)}, indent=1, sort_keys=True) + "\n"


def _seal(doc: Mapping[str, object]) -> str:
    return sha256(json.dumps(doc, sort_keys=True).encode()).hexdigest()[: manifest.SHORT]


def _serving(doc: object, place: StateLayout) -> ServingState:
    """Read serving.json: of a version that knows more, what this one knows."""
    known = {one.name for one in fields(ServingState)}
    if not isinstance(doc, dict):
        raise ValueError("no object")
    seal = doc.pop("seal", None)  # earlier versions wrote none
    if seal is not None and seal != _seal(doc):
        raise ValueError("its content does not fit its seal: a byte was changed")
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
