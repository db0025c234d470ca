"""Let a stage say what happens without knowing a tracker: the one tracking seam.

A stage process appends to a JSONL file; the flow process tails it and writes MLflow in batches
(docs/decisions: one writer per SQLite file). Tests pass a Memory recorder and read it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Protocol


class Recorder(Protocol):
    """What a stage may say."""

    def scalar(self, name: str, value: float, *, step: int = 0) -> None:
        """Record one point of a series, e.g. ("validation_accuracy", 0.98, step=epoch)."""

    def note(self, name: str, text: str) -> None:
        """Record a short text: a parameter in use, a reason. `warning` is printed at once."""

    def file(self, path: Path) -> None:
        """Name a file that the tracker should keep (a figure, a page)."""

    def progress(self, fraction: float, text: str) -> None:
        """Say how far the stage is: fraction in [0, 1] and a few words."""


class NullRecorder:
    """Drop everything."""

    def scalar(self, name: str, value: float, *, step: int = 0) -> None: ...
    def note(self, name: str, text: str) -> None: ...
    def file(self, path: Path) -> None: ...
    def progress(self, fraction: float, text: str) -> None: ...


class MemoryRecorder:
    """Keep everything in lists: the double for tests."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.notes: dict[str, str] = {}
        self.files: list[Path] = []
        self.progresses: list[tuple[float, str]] = []

    def scalar(self, name: str, value: float, *, step: int = 0) -> None:
        self.scalars.append((name, value, step))

    def note(self, name: str, text: str) -> None:
        self.notes[name] = text

    def file(self, path: Path) -> None:
        self.files.append(path)

    def progress(self, fraction: float, text: str) -> None:
        self.progresses.append((fraction, text))


class JsonlRecorder:
    """Append one JSON line per event, flushed at once, so that a tail sees it live."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("w", buffering=1)

    def _event(self, **event: float | str) -> None:
        self._handle.write(json.dumps({"time": time.time(), **event}) + "\n")

    def scalar(self, name: str, value: float, *, step: int = 0) -> None:
        self._event(kind="scalar", name=name, value=float(value), step=step)

    def note(self, name: str, text: str) -> None:
        self._event(kind="note", name=name, text=text)

    def file(self, path: Path) -> None:
        self._event(kind="file", path=str(path))

    def progress(self, fraction: float, text: str) -> None:
        self._event(kind="progress", fraction=fraction, text=text)

    def close(self) -> None:
        """Close the file."""
        self._handle.close()
