"""Worker harness: serves a toolchain's script over JSON lines, in the toolchain's own Python.

Run as `python -I worker_harness.py SCRIPT LIFELINE ARRAYS` (two inherited file descriptors).
Standard library and numpy only: nothing of fettle can be imported there. One request a line on
stdin, {"call": name, "words": {…}}; one line back, {"answer": {…}} or {"error": text}. Calls:

    open {entry, threads}       SCRIPT.open(entry, threads) → {"shape": [N, C, H, W], None: any}
    run {}                      one batch, read from ARRAYS; the logits are written there
    bind {}                     keep the batch in ARRAYS → {"bound": number}
    again {bound}               run a kept batch; the logits stay here
    time {bound}                run it once untimed, then once timed → {"ms": milliseconds}
    memory {entry, threads, shape}   open and run; bytes above the imported toolchain at the peak
    anything else               the function of that name in SCRIPT; it returns {…}

What a library prints on stdout would be mistaken for an answer: it goes to stderr instead.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Json = str | int | float | list[int] | list[int | None]  # an argument or a part of an answer

RUNS = 3  # as in fettle/hardware/peak_memory.py


def guard(lifeline: int, arrays: int) -> None:
    """Fork a watcher that kills this process group once the owner of `lifeline` is gone.

    A process, not a thread: a toolchain may hold the interpreter's lock for minutes. It has a
    group of its own, so that it can also delete the working folder.
    """
    group = os.getpgrp()
    if os.fork():
        os.close(lifeline)
        return
    os.setpgid(0, 0)
    for handle in (0, 1, 2, arrays):
        os.close(handle)
    os.read(lifeline, 1)  # returns at the owner's death: the kernel closes the writing end
    with contextlib.suppress(ProcessLookupError):  # the owner has killed it already
        os.killpg(group, signal.SIGKILL)
    shutil.rmtree(os.getcwd(), ignore_errors=True)  # noqa: PTH109  pathlib would say the same
    os._exit(0)


class OpenedModel(Protocol):
    """Opened model, as the script's open() returns it."""

    @property
    def shape(self) -> list[int | None]:
        """What it takes: [N, C, H, W], None where any size does."""

    def __call__(self, batch: Floats) -> Floats:
        """Run a batch; the logits."""


class Server:
    """The loaded script, the opened model, and the batches kept for timing."""

    def __init__(self, script: str, arrays: int) -> None:
        spec = importlib.util.spec_from_file_location("toolchain_script", script)
        assert spec is not None
        assert spec.loader is not None
        self._script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._script)
        # unbuffered: the owner writes it too, so what was read before is stale
        self._arrays = os.fdopen(arrays, "r+b", buffering=0)
        self._model: OpenedModel  # once `open` was called
        self._bound: list[Floats] = []

    def answer(self, call: str, words: dict[str, Json]) -> dict[str, Json]:
        """Serve one call; see the file's docstring."""
        own = {"open", "run", "bind", "again", "time", "memory"}
        function = getattr(self if call in own else self._script, call)
        return dict(function(**words))

    def open(self, entry: str, threads: int) -> dict[str, Json]:
        self._model = self._script.open(entry, threads)
        return {"shape": list(self._model.shape)}

    def run(self) -> dict[str, Json]:
        import numpy as np

        logits = np.asarray(self._model(self._batch()), dtype=np.float32)
        self._arrays.seek(0)
        self._arrays.truncate()
        np.save(self._arrays, np.ascontiguousarray(logits), allow_pickle=False)
        return {}

    def bind(self) -> dict[str, Json]:
        self._bound.append(self._batch())
        return {"bound": len(self._bound) - 1}

    def again(self, bound: int) -> dict[str, Json]:
        self._model(self._bound[bound])
        return {}

    def time(self, bound: int) -> dict[str, Json]:
        batch = self._bound[bound]
        self._model(batch)
        started = time.perf_counter_ns()
        self._model(batch)
        return {"ms": (time.perf_counter_ns() - started) / 1e6}

    def memory(self, entry: str, threads: int, shape: list[int]) -> dict[str, Json]:
        import numpy as np

        self._script.toolkit()
        batch = np.zeros(shape, np.float32)
        before = peak_bytes()
        model = self._script.open(entry, threads)
        for _ in range(RUNS):
            model(batch)
        return {"bytes": max(0, peak_bytes() - before)}

    def _batch(self) -> Floats:
        import numpy as np

        self._arrays.seek(0)
        batch: Floats = np.load(self._arrays, allow_pickle=False)
        return batch


def peak_bytes() -> int:
    """Read the largest resident size so far, as fettle/hardware/peak_memory.py does."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def main() -> None:
    """Serve until stdin ends."""
    script, lifeline, arrays = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    guard(lifeline, arrays)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    server: Server | None = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            server = server or Server(script, arrays)
            reply: dict[str, str | dict[str, Json]]
            reply = {"answer": server.answer(request["call"], request["words"])}
        except BaseException as err:  # a script's SystemExit is an error too
            if os.environ.get("FETTLE_DEBUG"):
                traceback.print_exc()
            reply = {"error": f"{type(err).__name__}: {err}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
