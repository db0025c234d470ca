"""Worker process of a release: starts at the first images, is fed by pipes, ends with its owner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from fettle.errors import OurFault, TransientError
from fettle.prediction import prediction_table
from fettle.prediction.prediction_inputs import InputImage
from fettle.prediction.prediction_table import Prediction

WORKER = Path(__file__).with_name("release_worker.py")
_TAIL = 400  # characters of a dead worker's last words


class WorkerProcess:
    """One worker process, started when it is first asked; leaving the context ends it."""

    def __init__(self, release: Path) -> None:
        self._release = release
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = bytearray()
        self._listener: threading.Thread | None = None

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    try:
                        stream.close()
                    except OSError:  # bytes that the dead worker never took
                        continue

    def answer(self, chunk: Sequence[InputImage]) -> list[Prediction]:
        """Send the images that could be read; return a row for each image of the chunk.

        Raises TransientError when the process dies.
        """
        send, receive = self._streams()
        readable = [image for image in chunk if image.error is None]
        try:
            send.write(json.dumps([len(image.encoded) for image in readable]).encode() + b"\n")
            for image in readable:
                send.write(image.encoded)
            send.flush()
        except OSError as err:
            raise self._died() from err
        answers = iter(json.loads(self._line(receive)))
        return [
            prediction_table.prediction(
                image.row, {"error": image.error} if image.error is not None else next(answers)
            )
            for image in chunk
        ]

    def _streams(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            command = [sys.executable, str(WORKER), str(self._release)]
            # no bytecode: the release is never changed, not even beside its files
            env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, env=env, start_new_session=True
            )
            self._listener = threading.Thread(target=self._listen, daemon=True)
            self._listener.start()
            if self._process.stdout is not None:
                self._line(self._process.stdout)  # "ready"
        if self._process.stdin is None or self._process.stdout is None:
            raise OurFault("the worker has no pipes")
        return self._process.stdin, self._process.stdout

    def _listen(self) -> None:
        """Keep the end of what the worker says: a full pipe would hold it up."""
        if self._process is not None and self._process.stderr is not None:
            with self._process.stderr as errors:
                for line in errors:
                    self._errors = (self._errors + line)[-_TAIL:]

    def _line(self, receive: IO[bytes]) -> bytes:
        line = receive.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        return line

    def _died(self) -> TransientError:
        code = self._process.wait() if self._process is not None else None
        if self._listener is not None:
            self._listener.join(timeout=1)
        said = bytes(self._errors).decode(errors="replace").strip().splitlines()
        return TransientError(
            "a worker of `fettle predict` died",
            got=f"exit code {code}{f'; it said: {said[-1]}' if said else ''}",
            rule="finished chunks are kept",
            fix="run the same command again: it goes on from there; with fewer --workers, if the "
            "memory was full",
        )
