"""Lazy array: rows that are read when they are asked for, with numpy's indexing.

What grows with the number of images (pixels, features) is gathered into memory while it is small,
else into an unlinked file; who reads it by slices, or by arrays of row numbers, sees no difference.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from fettle.scratch_file import ScratchFile

if TYPE_CHECKING:
    Slice = slice[int | None, int | None, int | None]

Scalar = TypeVar("Scalar", bound=np.uint8 | np.float32)  # pixels, features
Scalar_co = TypeVar("Scalar_co", bound=np.uint8 | np.float32, covariant=True)
Ints = npt.NDArray[np.int64]
Array = np.ndarray[tuple[int, ...], np.dtype[Scalar]]
Array_co = np.ndarray[tuple[int, ...], np.dtype[Scalar_co]]

# What is smaller stays in memory: 64 rows of 1 kB are taken in 9 us there, in 115 us from a file,
# which a step on such images would feel (32 of 48 kB: 89, 172). 32 MiB are 2,700 photos of 64 px.
MEMORY_BYTES_MAX = 32 * 2**20
CHUNK_BYTES = 16 * 2**20  # of a pass over all rows: enough that a call costs nothing beside it
AHEAD = 1  # batches read while the one before is worked on


class RowArray(Protocol[Scalar_co]):
    """Array [N, …] that is read by slices or by row numbers: numpy's own, or a LazyArray."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, rows: Ints, /) -> Array_co[Scalar_co]: ...

    @overload
    def __getitem__(self, rows: Slice, /) -> Array_co[Scalar_co]: ...


class LazyArray(Generic[Scalar]):
    """Array [N, …] whose rows `read` brings, given their numbers; `[…]` gives numpy's own array."""

    def __init__(
        self,
        read: Callable[[Ints], Array[Scalar]],
        shape: tuple[int, ...],
        rows: Ints | None = None,
    ) -> None:
        self._read, self._rows = read, rows
        self.shape = shape if rows is None else (len(rows), *shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Slice | Ints) -> Array[Scalar]:
        """Read some rows, by a slice, their numbers or a mask."""
        return self._read(self._numbers(rows))

    def select(self, rows: Slice | Ints) -> LazyArray[Scalar]:
        """Return these rows alone, still unread."""
        whole = (len(self), *self.shape[1:])
        return LazyArray(self._read, whole, self._numbers(rows))

    def _numbers(self, rows: Slice | Ints) -> Ints:
        """Return the numbers of some rows as `read` knows them."""
        if isinstance(rows, slice):
            found = np.arange(*rows.indices(len(self)))
        else:
            found = np.asarray(rows)
            if found.dtype == np.bool_:
                if len(found) != len(self):
                    raise IndexError(f"a mask of {len(found)} for {len(self)} rows")
                found = np.flatnonzero(found)
            if len(found) and not -len(self) <= found.min() <= found.max() < len(self):
                raise IndexError(f"rows {found.min()} to {found.max()} of {len(self)}")
            found = np.where(found < 0, found + len(self), found)
        return found if self._rows is None else self._rows[found]


def select(array: RowArray[Scalar], rows: Slice | Ints) -> RowArray[Scalar]:
    """Return some rows of an array; of a lazy one they stay unread."""
    return array.select(rows) if isinstance(array, LazyArray) else array[rows]


def gather(
    parts: Iterable[Array[Scalar]],
    *,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    folder: Path | None,
    what: str,
) -> RowArray[Scalar]:
    """Put parts together to an array of `shape`: in memory, or above MEMORY_BYTES_MAX in a scratch
    file in `folder`, if there is one.

    Raises TransientError where the disk is too small, before the first part is asked for.
    """
    row_bytes = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    if folder is None or shape[0] * row_bytes <= MEMORY_BYTES_MAX:
        whole: Array[Scalar] = np.empty(shape, dtype)
        start = 0
        for part in parts:
            whole[start : start + len(part)] = part
            start += len(part)
        assert start == shape[0], (start, shape)
        return whole
    file = ScratchFile(folder, what=what, need_bytes=shape[0] * row_bytes)
    for part in parts:
        file.append(np.ascontiguousarray(part, dtype).data)
    assert file.size_bytes == shape[0] * row_bytes, (file.size_bytes, shape)

    def read(rows: Ints) -> Array[Scalar]:
        found: Array[Scalar] = np.empty((len(rows), *shape[1:]), dtype)
        if not found.size:
            return found
        view = found.data.cast("B")
        # rows that lie one behind the other are one read
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        starts = [0, *breaks.tolist(), len(rows)]
        for first, last in pairwise(starts):
            file.read_into(view[first * row_bytes : last * row_bytes], int(rows[first]) * row_bytes)
        return found

    return LazyArray(read, shape)


def chunks(array: RowArray[Scalar]) -> list[Slice]:
    """Cut the rows into slices to go over all of them: one where the array is in memory, else of
    CHUNK_BYTES each.
    """
    if not isinstance(array, LazyArray):
        return [slice(0, len(array))]
    row_bytes = max(1, array[:1].nbytes)
    size = max(1, CHUNK_BYTES // row_bytes)
    return [slice(start, min(start + size, len(array))) for start in range(0, len(array), size)]


def read_ahead(array: RowArray[Scalar], batches: Iterable[Slice | Ints]) -> Iterator[Array[Scalar]]:
    """Yield the rows of each batch; those of a lazy array are read in a thread meanwhile, while the
    caller works on the batch before.
    """
    if not isinstance(array, LazyArray):
        for rows in batches:
            yield array[rows]
        return
    waiting: deque[Future[Array[Scalar]]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    try:
        for rows in batches:
            waiting.append(pool.submit(array.__getitem__, rows))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
