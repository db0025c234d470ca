"""Isolated session: a model in a toolchain's worker, a Session as any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.isolated.isolated_worker import CallWords, Worker
from fettle.hardware.isolated.toolchain import Toolchain
from fettle.hardware.runtimes import Floats, Shape, check_entry, run_checked


@dataclass(frozen=True, slots=True)
class Bound:
    """A batch that waits in the worker: call it to run it there, no array moved."""

    worker: Worker
    number: int

    def __call__(self) -> None:
        """Run the batch; the logits stay in the worker."""
        self.worker.ask("again", {"bound": self.number})

    def time_ms(self) -> float:
        """Run it once untimed and once timed, both in the worker; return that one's time in ms."""
        return float(self.worker.ask("time", {"bound": self.number})["ms"])


class IsolatedSession:
    """A model loaded in a worker, which lives as long as this does."""

    input_shape: Shape

    def __init__(self, worker: Worker, entry: Path, threads: int) -> None:
        self.worker = worker
        opened = worker.ask("open", {"entry": str(entry.resolve()), "threads": threads})
        self.input_shape = tuple(None if size is None else int(size) for size in opened["shape"])

    def run(self, batch: Floats) -> Floats:
        """Return the logits float32 [N, classes] of a batch float32 [N, C, H, W]."""
        return run_checked(self, self.worker.run, batch)

    def bind(self, batch: Floats) -> Bound:
        """Leave a batch in the worker, to be timed there."""
        self.run(batch[:1] if self.input_shape[0] == 1 else batch)  # told here if it does not fit
        return Bound(self.worker, self.worker.bind(batch))


def start(toolchain: Toolchain, *, threads: int = 1) -> Worker:
    """Start a worker of an installed toolchain; raises TargetError when it is not installed."""
    python = toolchain_environment.python(toolchain)
    return Worker(
        toolchain.title,
        python,
        toolchain.script,
        threads=threads,
        limits=toolchain.limits,
        harness=toolchain.harness,
    )


def open_session(toolchain: Toolchain, entry: Path, *, threads: int) -> IsolatedSession:
    """Load an entry in a worker of its own.

    Raises ModelError when it cannot be loaded, TargetError when the toolchain is not installed.
    """
    check_entry(entry)
    return IsolatedSession(start(toolchain, threads=threads), entry, threads)


def peak_bytes(toolchain: Toolchain, entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes that loading and running an entry adds to a fresh worker, at the peak."""
    words: CallWords = {
        "entry": str(entry.resolve()),
        "threads": threads,
        "shape": list(shape),
    }
    with start(toolchain, threads=threads) as worker:
        return int(worker.ask("memory", words)["bytes"])
