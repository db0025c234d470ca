"""Batch prediction: hands images in chunks to worker processes, and resumes what was killed.

A finished chunk is a file below OUT.part, renamed into place and named after its position and the
digest of the release and of its images. The next run reads and digests the images again and
answers only chunks that have no such file: an image that was changed since, or another release,
is never answered from an old one. The table is written from all chunks at the end.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fettle import manifest
from fettle.errors import BusyError
from fettle.prediction import prediction_inputs, prediction_table
from fettle.prediction.prediction_inputs import InputImage
from fettle.prediction.prediction_table import Prediction
from fettle.prediction.worker_process import WorkerProcess
from fettle.serving import release_bundle

CHUNK_IMAGES = 128
CHUNK_BYTES = 64 * 2**20  # of encoded images: a chunk a worker is all that is held in memory


@dataclass(slots=True)
class PredictionTotals:
    """What was done: images in all, those without an answer, those that an earlier run answered."""

    images: int = 0
    failed: int = 0
    resumed: int = 0


@dataclass(slots=True)
class _Work:
    """What the threads share: the chunks still to come, and where finished ones go."""

    chunks: Iterator[list[InputImage]]
    folder: Path
    release: Path
    digest: str
    progress: Callable[[PredictionTotals], None]
    totals: PredictionTotals = field(default_factory=PredictionTotals)
    done: dict[int, Path] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False
    taken: int = 0

    def take(self) -> tuple[int, list[InputImage]] | None:
        """Return the next chunk and its number; reading is done by one thread at a time."""
        with self.lock:
            chunk = None if self.stopped else next(self.chunks, None)
            if chunk is None:
                return None
            self.taken += 1
            return self.taken - 1, chunk

    def finish(self, number: int, path: Path, rows: Sequence[Prediction], *, resumed: bool) -> None:
        """Note a chunk as done."""
        with self.lock:
            self.done[number] = path
            self.totals.images += len(rows)
            self.totals.failed += sum(row["error"] is not None for row in rows)
            self.totals.resumed += len(rows) if resumed else 0
            self.progress(self.totals)


def predict(
    places: Sequence[Path],
    release: Path,
    out: Path,
    *,
    workers: int,
    progress: Callable[[PredictionTotals], None] = lambda _: None,
) -> PredictionTotals:
    """Answer every image of `places` with `release` and write the table `out`.

    Raises UserError or DataError before any work, TamperedError for a changed release, BusyError
    when another process writes the same table, TransientError when a worker dies.
    """
    prediction_table.check(out, places)
    prediction_inputs.check(places)
    _, digest = release_bundle.verify(release)
    folder = out.with_name(f"{out.name}.part")
    with _held(folder, out):
        images = prediction_inputs.read(places)
        work = _Work(chunked(images), folder, release.resolve(), digest, progress)
        with ThreadPoolExecutor(max_workers=workers) as threads:
            running = [threads.submit(_answer_chunks, work) for _ in range(workers)]
            try:
                finished, _ = wait(running, return_when=FIRST_EXCEPTION)
            finally:
                work.stopped = True
        for one in finished:
            one.result()
        prediction_table.write(out, (_read(work.done[at]) or () for at in range(work.taken)))
        shutil.rmtree(folder)
    return work.totals


def chunked(images: Iterator[InputImage]) -> Iterator[list[InputImage]]:
    """Cut the images into chunks, by number and by bytes: the same images give the same chunks."""
    chunk: list[InputImage] = []
    size = 0
    for image in images:
        chunk.append(image)
        size += len(image.encoded)
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _answer_chunks(work: _Work) -> None:
    """Answer chunk after chunk; the worker is started at the first that is not answered yet."""
    with WorkerProcess(work.release) as worker:
        while (taken := work.take()) is not None:
            number, chunk = taken
            path = work.folder / f"{number:08d}-{_digest(work.digest, chunk)}.jsonl"
            rows = _read(path)
            resumed = rows is not None and len(rows) == len(chunk)
            if rows is None or not resumed:
                rows = worker.answer(chunk)
                manifest.write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))
            work.finish(number, path, rows, resumed=resumed)


def _digest(release: str, chunk: Sequence[InputImage]) -> str:
    """Digest all that a chunk's answers depend on."""
    total = hashlib.sha256(release.encode())
    for image in chunk:
        content = hashlib.sha256(image.encoded).hexdigest()
        total.update(json.dumps([image.row, content, image.error]).encode() + b"\n")
    return total.hexdigest()[:32]


def _read(path: Path) -> list[Prediction] | None:
    """Read a finished chunk; None when there is none, or when the power failed while it was
    written.
    """
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def _held(folder: Path, out: Path) -> Iterator[None]:
    """Hold the folder of chunks: the kernel frees the lock on any death. Raises BusyError."""
    import fcntl

    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise BusyError(
                f"another `fettle predict` writes {out}",
                rule="one at a time writes a table",
                fix="wait for it, or name another --out",
            ) from err
        yield
