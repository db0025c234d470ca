"""Stage events, followed while it runs: to MLflow in batches, to Prefect as a progress bar."""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Required, TypedDict
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.exceptions import PrefectHTTPStatusError

from fettle.adapters.mlflow_tracking import Tracker

SAY = logging.getLogger("fettle.run")
EVERY_S = 1.0  # a call of Prefect's API and a batch for MLflow, at most this often


class RecorderEvent(TypedDict, total=False):
    """One line of a recorder: its kind, and what that kind has (fettle/recorder.py)."""

    kind: Required[str]
    time: float
    name: str
    value: float
    step: int
    text: str
    path: str
    fraction: float


class StageEvents:
    """The reader of records/NAME.jsonl; `tell` queues a call of what may take its time."""

    def __init__(
        self,
        tree: Path,
        name: str,
        *,
        tell: Callable[[Callable[[], object]], None],
        tracker: Tracker,
    ) -> None:
        self._name, self._tell, self._tracker = name, tell, tracker
        self._path = tree / "records" / f"{name}.jsonl"
        self._started = time.time()
        self._offset = 0
        self._next = 0.0
        self._artifact: UUID | None = None
        self._lost = False  # Prefect's server; the stage goes on, the flow's end says so

    def tick(self) -> None:
        """Hand over the new lines, at most once a second."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        progress = [e for e in self._hand_over() if e["kind"] == "progress"]
        if progress:
            self._show(progress[-1]["fraction"], progress[-1]["text"])

    def end(self, *, whole: bool) -> None:
        """Hand over the rest; the bar of a stage that is done is full."""
        self._hand_over()
        if whole and self._artifact is not None:
            self._tell(functools.partial(self._bar, 1.0, None))

    def _hand_over(self) -> list[RecorderEvent]:
        events = self._new_lines()
        if events:
            self._tell(functools.partial(self._tracker.events, self._name, events))
        for event in events:
            if event["kind"] == "note" and event["name"] in ("warning", "decision"):
                SAY.info(event["name"], extra={event["name"]: (self._name, event["text"])})
        return events

    def _new_lines(self) -> list[RecorderEvent]:
        if not self._path.is_file() or self._path.stat().st_mtime < self._started:
            return []
        with self._path.open() as handle:
            handle.seek(self._offset)
            text = handle.read()
        whole = text[: text.rfind("\n") + 1]
        self._offset += len(whole.encode())
        return [json.loads(line) for line in whole.splitlines()]

    def _show(self, fraction: float, text: str) -> None:
        SAY.info("progress", extra={"progress": (self._name, fraction, text)})
        self._bar(fraction, text)

    def _bar(self, fraction: float, text: str | None) -> None:
        """Move the stage's progress bar in Prefect, as long as its server answers."""
        if self._lost:
            return
        try:
            if self._artifact is None:
                key = f"progress-{self._name.replace('@', '-').replace('_', '-')}"
                made = create_progress_artifact(progress=0.0, key=key, description=text)
                self._artifact = made if isinstance(made, UUID) else None
            if self._artifact is not None:
                update_progress_artifact(self._artifact, progress=100 * fraction, description=text)
        except (httpx.HTTPError, PrefectHTTPStatusError):
            self._lost = True
