"""Pixel store: the decoded images of a split as one array [N, C, S, S], in memory or not.

Three ways, by what the pixels take decoded: a small split lies in memory; a larger one is decoded
once, into an unlinked file; above DECODED_BYTES_MAX, or where that does not fit the disk, the
encoded images lie in that file and each batch is decoded when it is read. The pixels are the same.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fettle import lazy_array
from fettle.data.bounded_thread_map import bounded_thread_map
from fettle.lazy_array import Ints, LazyArray, RowArray
from fettle.preprocessing import Pixels, Preprocess
from fettle.scratch_file import SPARE_BYTES, ScratchFile, in_words

# 57,000 photos of 224 px. Decoding one was measured to take 0.4 ms of one core, 0.7 with resizing,
# which is little beside a network's passes over it: beyond this the disk is worth more.
DECODED_BYTES_MAX = 8 * 2**30
# What one thread decodes at a time, felt right: a task costs about what a digit of 8 px does.
CHUNK_IMAGES, CHUNK_BYTES = 16, 4 * 2**20
REPORT_IMAGES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedSplit:
    """The images to decode: how many, what they take encoded (about), a fresh stream of them."""

    name: str
    count: int
    encoded_bytes: int
    stream: Callable[[], Iterator[bytes]]


def decode(
    split: EncodedSplit,
    preprocess: Preprocess,
    *,
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[str], None] = lambda _: None,
) -> RowArray[np.uint8]:
    """Return the split's pixels uint8 [N, C, S, S]; `say` is told where they lie, if not in memory.

    Raises UnreadableImage as Preprocess.pixels does, TransientError where the disk is too small.
    """
    shape = (split.count, preprocess.channels, preprocess.size_px, preprocess.size_px)
    decoded_bytes = math.prod(shape)
    if decoded_bytes > lazy_array.MEMORY_BYTES_MAX:
        told = f"{split.count:,} {split.name} images: {in_words(decoded_bytes)} of pixels"
        if not _fits_decoded(decoded_bytes, split, folder):
            say(f"{told} are decoded anew for each batch: a file for them would be too large")
            return _decode_on_demand(split, preprocess, shape, folder)
        say(f"{told} are decoded once, into a temporary file")
    return lazy_array.gather(
        _counted(decoded_chunks(split.stream(), preprocess), split, progress),
        shape=shape,
        dtype=np.uint8,
        folder=folder,
        what=f"the pixels of {split.count:,} {split.name} images",
    )


def _fits_decoded(decoded_bytes: int, split: EncodedSplit, folder: Path) -> bool:
    """Tell whether to decode ahead; where the disk takes neither form, that of the least need is
    chosen, and refused.
    """
    if decoded_bytes > DECODED_BYTES_MAX:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free - SPARE_BYTES
    return decoded_bytes <= free or decoded_bytes <= split.encoded_bytes


def decoded_chunks(encoded: Iterable[bytes], preprocess: Preprocess) -> Iterator[Pixels]:
    """Decode a stream of images in a few threads: uint8 [n, C, S, S] at a time, in order."""
    return bounded_thread_map(preprocess.batch, _chunked(encoded))


def _chunked(encoded: Iterable[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for one in encoded:
        chunk.append(one)
        size += len(one)
        if len(chunk) == CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _counted(
    parts: Iterator[Pixels], split: EncodedSplit, progress: Callable[[str], None]
) -> Iterator[Pixels]:
    done = 0
    for part in parts:
        if done // REPORT_IMAGES != (done + len(part)) // REPORT_IMAGES:
            progress(f"{done + len(part):,} of {split.count:,} {split.name} images decoded")
        done += len(part)
        yield part


def _decode_on_demand(
    split: EncodedSplit, preprocess: Preprocess, shape: tuple[int, ...], folder: Path
) -> LazyArray[np.uint8]:
    """Lay the encoded images into a file; each read decodes the rows it is asked for."""
    what = f"{split.count:,} encoded {split.name} images"
    file = ScratchFile(folder, what=what, need_bytes=split.encoded_bytes)
    places = [(file.append(encoded), len(encoded)) for encoded in split.stream()]
    table = np.asarray(places, dtype=np.int64)

    def read(rows: Ints) -> Pixels:
        found: Pixels = np.empty((len(rows), *shape[1:]), dtype=np.uint8)
        start = 0
        encoded = (file.read(offset, length) for offset, length in table[rows].tolist())
        for part in decoded_chunks(encoded, preprocess):
            found[start : start + len(part)] = part
            start += len(part)
        return found

    return LazyArray(read, shape)
