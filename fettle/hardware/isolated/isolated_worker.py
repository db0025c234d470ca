"""Isolated worker: a toolchain's script in a subprocess, JSON lines, time and memory limited.

The worker leads a process group of its own. It is killed with the whole group when a call takes
too long or too much memory, when it answers out of turn, when it is closed, and when this process
dies however it dies: a watcher in the worker holds the reading end of a pipe of which only this
process has the writing end. Its stderr is read all the time, and its last lines go into the error.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NoReturn, TypedDict

import numpy as np

from fettle.errors import ModelError, TargetError
from fettle.hardware.isolated.toolchain import GIB, HERE, PLAIN_PATH, Limits
from fettle.hardware.runtimes import Floats

HARNESS = HERE / "worker_harness.py"
POLL_S = 0.05  # how often memory is looked at: 1 GB is written in about half a second
ANSWER_BYTES = 1 << 20  # one line of JSON; arrays go another way
TAIL_BYTES = 8192  # of stderr that are kept
LAST_LINES = 3
CallWords = Mapping[
    str, str | int | float | list[int] | None
]  # keyword arguments of a call, as JSON has them


class WorkerAnswer(TypedDict, total=False):
    """Worker's answer to a call: which key it has is the call's, see worker_harness.py."""

    shape: list[int | None]
    bound: int
    ms: float
    bytes: int
    seconds: float
    refused: str  # why the toolchain would misread a file, "" where it would not


class Worker:
    """A subprocess that serves the functions of `script` in another Python, or in Node.js.

    `name` is what errors call it. The first failure ends it; a function that raises does not.
    """

    def __init__(
        self,
        name: str,
        python: Path,
        script: Path,
        *,
        threads: int = 1,
        limits: Limits = Limits(),  # noqa: B008  frozen
        harness: Path = HARNESS,
    ) -> None:
        self._name, self._limits, self._ended = name, limits, ""
        folder = tempfile.mkdtemp(prefix="fettle-worker-", dir=_temporary())
        self._arrays = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  lives as long as this
        reading, lifeline = os.pipe()
        handles = (reading, self._arrays.fileno())
        try:
            self._process = subprocess.Popen(
                [*_interpreter(python, harness), str(script), *map(str, handles)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=_environment(python, folder, threads),
                pass_fds=handles,
                start_new_session=True,
            )
        except OSError:
            os.close(lifeline)
            shutil.rmtree(folder)
            raise
        finally:
            os.close(reading)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._lock = threading.Lock()  # a worker serves one call at a time; further ones queue
        self._tail: deque[bytes] = deque(maxlen=TAIL_BYTES // 64)
        self._listener = threading.Thread(
            target=_listen, args=(self._process.stderr, self._tail), daemon=True
        )
        self._listener.start()
        self.close = weakref.finalize(
            self, _end, os.getpid(), self._process, lifeline, self._arrays, folder
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The leader of the worker's process group."""
        return self._process.pid

    def ask(self, call: str, words: CallWords | None = None) -> WorkerAnswer:
        """Call a function of the script with keyword arguments; return the object it answers.

        Raises ModelError when it raises, takes too long or too much memory, dies, or answers with
        something else than one line of JSON.
        """
        with self._lock:
            return self._ask(call, words or {})

    def run(self, batch: Floats) -> Floats:
        """Run the opened model: float32 [N, C, H, W] → what it answers, float32.

        Raises ModelError as `ask` does.
        """
        with self._lock:
            self._hand_over("run", batch)
            self._ask("run", {})
            self._arrays.seek(0)
            try:
                answer: Floats = np.load(self._arrays, allow_pickle=False)
            except (ValueError, EOFError) as err:
                self._fail("run", f"an answer that is no array ({err})")
        return answer

    def bind(self, batch: Floats) -> int:
        """Leave a batch in the worker, to be run there again and again; return its number."""
        with self._lock:
            self._hand_over("bind", batch)
            return int(self._ask("bind", {})["bound"])

    def _hand_over(self, call: str, batch: Floats) -> None:
        self._check_alive(call)
        self._arrays.seek(0)
        self._arrays.truncate()
        np.save(self._arrays, np.ascontiguousarray(batch), allow_pickle=False)

    def _check_alive(self, call: str) -> None:
        if not self.close.alive:
            raise self._error(call, f"a worker that has ended ({self._ended or 'it was closed'})")

    def _ask(self, call: str, words: CallWords) -> WorkerAnswer:
        self._check_alive(call)
        with contextlib.suppress(BrokenPipeError):  # it is dead: reading says how
            self._requests.write(json.dumps({"call": call, "words": words}).encode() + b"\n")
            self._requests.flush()
        line = self._read_line(call)
        try:
            reply = json.loads(line)
            if "error" in reply:
                raise self._error(call, str(reply["error"])[:300])
            answer: WorkerAnswer = reply["answer"]
            if not isinstance(answer, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            self._fail(call, f"an answer that is no JSON object: {line[:80]!r}")
        return answer

    def _read_line(self, call: str) -> bytes:
        """Wait for one line, within the limits."""
        deadline, buffer = time.monotonic() + self._limits.seconds, bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while not buffer.endswith(b"\n"):
                if selector.select(POLL_S):
                    chunk = os.read(self._replies.fileno(), 65536)
                    if not chunk:
                        self._fail(call, self._death())
                    buffer += chunk
                    if len(buffer) > ANSWER_BYTES or b"\n" in buffer[:-1]:
                        self._fail(call, f"an answer out of turn: {bytes(buffer[:80])!r}")
                    continue
                if time.monotonic() > deadline:
                    self._fail(call, f"no answer in {self._limits.seconds:g} s")
                used = resident_bytes(self.pid)
                if used > self._limits.memory_bytes:
                    self._fail(call, f"{used / GIB:.1f} GiB of memory in use")
        return bytes(buffer)

    def _death(self) -> str:
        """Say how it ended; it has closed its answers already."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its answers"
        if code < 0:
            return f"it was ended by {signal.Signals(-code).name}"
        return f"it ended with exit code {code} and no answer"

    def _fail(self, call: str, got: str) -> NoReturn:
        """Kill the group; raise what became of the call."""
        self.close()
        self._listener.join(timeout=1)
        self._ended = got
        raise self._error(call, got)

    def _error(self, call: str, got: str) -> ModelError:
        lines = b"".join(self._tail).decode(errors="replace").splitlines()
        last = " / ".join([line.strip()[:200] for line in lines if line.strip()][-LAST_LINES:])
        return ModelError(
            f"{self._name} could not {call} the model",
            got=f"{got}; its last lines: {last}" if last else got,
            rule=f"one call may take {self._limits.seconds:g} s and "
            f"{self._limits.memory_bytes / GIB:.3g} GiB",
            fix="drop its targets for this model (params.yaml: targets), or change what the lines "
            "name",
        )


def ask(
    name: str,
    python: Path,
    script: Path,
    call: str,
    words: CallWords,
    *,
    threads: int = 1,
    limits: Limits = Limits(),  # noqa: B008  frozen
) -> WorkerAnswer:
    """Start a worker for one call, and end it; raises ModelError as `Worker.ask` does."""
    with Worker(name, python, script, threads=threads, limits=limits) as worker:
        return worker.ask(call, words)


def resident_bytes(pid: int) -> int:
    """Add up the resident memory of a process and of its descendants; 0 where /proc is not."""
    total, waiting = 0, [str(pid)]
    page = os.sysconf("SC_PAGE_SIZE")
    while waiting:
        place = Path("/proc") / waiting.pop()
        with contextlib.suppress(OSError, IndexError):  # it may end while it is looked at
            total += int((place / "statm").read_text().split()[1]) * page
            for task in (place / "task").iterdir():
                waiting += (task / "children").read_text().split()
    return total


def _temporary() -> str:
    """Name a temporary folder whose path toolchains can take; raises TargetError without one."""
    given = tempfile.gettempdir()
    for place in (given, "/tmp", "/var/tmp"):
        if PLAIN_PATH.fullmatch(place) and os.access(place, os.W_OK | os.X_OK):
            return place
    raise TargetError(
        "there is no temporary folder with a path that toolchains can take",
        got=f"'{given}'",
        rule="they hand it to a shell unquoted: letters, digits and / . _ , + @ : = ~ - only",
        fix="set TMPDIR to another folder",
    )


def _environment(python: Path, folder: str, threads: int) -> dict[str, str]:
    """Return this process's variables, without what would lead the other Python astray."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    pins = {f"{key}_NUM_THREADS": str(threads) for key in ("OMP", "MKL", "OPENBLAS")}
    path = os.pathsep.join([str(python.parent), kept.get("PATH", os.defpath)])
    return {**kept, **pins, "PATH": path, "TMPDIR": folder}


def _interpreter(python: Path, harness: Path) -> list[str]:
    """Return the command that runs a harness; -I keeps Python from the caller's own packages."""
    return [str(python), *(["-I"] if harness.suffix == ".py" else []), str(harness)]


def _listen(stderr: IO[bytes], tail: deque[bytes]) -> None:
    """Keep the last bytes of stderr; a full pipe would stop the worker."""
    with contextlib.suppress(OSError, ValueError), stderr:
        while chunk := os.read(stderr.fileno(), 65536):
            tail.extend(chunk[start : start + 64] for start in range(0, len(chunk), 64))


def _end(
    owner: int, process: subprocess.Popen[bytes], lifeline: int, arrays: IO[bytes], folder: str
) -> None:
    """Kill the group, let the watcher go, and reap. A fork of the owner leaves all as it is."""
    if os.getpid() != owner:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    os.close(lifeline)
    arrays.close()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was not flushed is lost with its reader
            if pipe is not None:
                pipe.close()
    shutil.rmtree(folder, ignore_errors=True)
