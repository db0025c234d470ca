"""Name the files of the supervisor, and the small ones that its processes speak through.

.fettle/canary/
serving.json         what serves: the pinned releases, the address, the running rollout
lease                touched by the controller at every tick; the warden looks at its age
warden.json, controller.json   their pids
inbox/N.json         orders of `fettle canary …`, taken in order, deleted when obeyed
outbox/N.json        what became of them
rollouts/ID/         journal.jsonl, and status.json for who watches
router/              nginx: its configuration, logs, stop switch
arms/RELEASE/        a served release: pid, port, log
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from fettle import manifest

LEASE_S = 10.0  # before a plan says otherwise
OVER = ("promoted", "rolled_back", "aborted")


@dataclass(frozen=True, slots=True)
class Release:
    """A pinned release: 12 hex digits of its digest, its Bento, its folder and model version."""

    release: str
    tag: str
    folder: str
    version: str | None = None

    @classmethod
    def of(cls, doc: dict[str, Any]) -> Self:  # Any: JSON
        """Read it from JSON."""
        return cls(**doc)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the supervisor serves. `rollout` names the rollout that is watched, over or not."""

    host: str
    port: int
    control: int
    feedback: int
    champion: Release | None = None
    challenger: Release | None = None
    rollout: str | None = None
    lease_s: float = LEASE_S
    certificate: str | None = None
    certificate_key: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
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
    def warden(self) -> Path:
        """The warden's pid file."""
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

    def serving(self) -> Serving | None:
        """Read what serves, or None before the first time."""
        path = self.folder / "serving.json"
        if not path.is_file():
            return None
        doc = json.loads(path.read_text())
        for arm in ("champion", "challenger"):
            doc[arm] = Release.of(doc[arm]) if doc[arm] else None
        return Serving(**doc)

    def write_serving(self, serving: Serving) -> None:
        """Write what serves, in one atomic step."""
        manifest.write_json(self.folder / "serving.json", asdict(serving))

    def active(self) -> str | None:
        """Return the rollout that is under way, None when none is."""
        serving = self.serving()
        if serving is None or serving.rollout is None:
            return None
        path = self.rollout(serving.rollout) / "status.json"
        state = json.loads(path.read_text())["state"] if path.is_file() else "pending"
        return None if state in OVER else serving.rollout

    def renew_lease(self) -> None:
        """Say that the controller lives."""
        self.lease.touch()

    def lease_age_s(self) -> float:
        """Return the age of the lease; infinite when there is none."""
        try:
            return time.time() - self.lease.stat().st_mtime
        except FileNotFoundError:
            return float("inf")


def post(place: Place, order: dict[str, Any]) -> str:  # Any: JSON
    """Put an order into the inbox; return its name. Names sort by time."""
    place.inbox.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{os.getpid()}"
    manifest.write_json(place.inbox / f"{name}.json", order)
    return name


def orders(place: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the orders in the inbox, oldest first; `obeyed` takes one away."""
    for path in sorted(place.inbox.glob("*.json")):
        yield path.stem, json.loads(path.read_text())


def obeyed(place: Place, name: str, answer: dict[str, Any]) -> None:
    """Answer an order, then take it out of the inbox: killed between, it is obeyed again."""
    place.outbox.mkdir(parents=True, exist_ok=True)
    manifest.write_json(place.outbox / f"{name}.json", answer)
    with suppress(FileNotFoundError):
        (place.inbox / f"{name}.json").unlink()


def answer(place: Place, name: str, *, timeout_s: float) -> dict[str, Any] | None:
    """Wait for what became of an order; None when nobody obeyed in time."""
    path = place.outbox / f"{name}.json"
    deadline = time.monotonic() + timeout_s
    while not path.is_file():
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    doc: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return doc
