"""Lazy array: what lies in a file is indexed as numpy indexes what lies in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from fettle import lazy_array
from fettle.errors import TransientError
from fettle.lazy_array import LazyArray, chunks, gather, read_ahead, select

WHOLE = np.random.default_rng(3).integers(0, 256, size=(23, 2, 3, 3), dtype=np.uint8)


@pytest.fixture
def lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LazyArray[np.uint8]:
    """WHOLE in a file."""
    monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    found = in_file(WHOLE, tmp_path)
    assert isinstance(found, LazyArray)
    return found


def in_file(whole: np.ndarray, folder: Path) -> lazy_array.RowArray[np.uint8]:
    parts = (whole[at : at + 5] for at in range(0, len(whole), 5))
    return gather(parts, shape=whole.shape, dtype=whole.dtype, folder=folder, what="rows")


INDICES = st.one_of(
    st.slices(len(WHOLE)),
    st_numpy.arrays(np.int64, st.integers(0, 40), elements=st.integers(-23, 22)),
    st_numpy.arrays(np.bool_, 23),
)


@settings(max_examples=60, deadline=None)
@given(first=INDICES, then=st.slices(7))
def test_every_way_of_indexing_gives_what_numpy_gives(
    tmp_path_factory: pytest.TempPathFactory, first: slice | np.ndarray, then: slice
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
        lazy = in_file(WHOLE, tmp_path_factory.getbasetemp())
    found, view = lazy[first], select(lazy, first)
    np.testing.assert_array_equal(found, WHOLE[first])
    assert (found.dtype, view.shape) == (np.uint8, WHOLE[first].shape)
    np.testing.assert_array_equal(view[:], WHOLE[first])
    np.testing.assert_array_equal(view[then], WHOLE[first][then])


def test_a_selection_reads_nothing(lazy: LazyArray[np.uint8]) -> None:
    read: list[np.ndarray] = []
    spied = LazyArray(lambda rows: read.append(rows) or WHOLE[rows], WHOLE.shape)
    half = select(spied, np.arange(0, 23, 2))
    assert (len(half), half.shape, read) == (12, (12, 2, 3, 3), [])
    half[1:3]
    assert [rows.tolist() for rows in read] == [[2, 4]]


def test_a_row_that_is_not_there_is_no_silence(lazy: LazyArray[np.uint8]) -> None:
    with pytest.raises(IndexError, match="rows 0 to 23 of 23"):
        lazy[np.array([0, 23])]
    with pytest.raises(IndexError, match="a mask of 5 for 23 rows"):
        lazy[np.ones(5, dtype=bool)]  # type: ignore[index]  # the mistake itself


def test_a_small_array_stays_in_memory(tmp_path: Path) -> None:
    assert isinstance(in_file(WHOLE, tmp_path), np.ndarray)


def test_without_a_folder_all_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    found = gather([WHOLE], shape=WHOLE.shape, dtype=np.uint8, folder=None, what="rows")
    assert isinstance(found, np.ndarray)


def test_a_small_disk_is_refused_before_the_first_part_is_asked_for(tmp_path: Path) -> None:
    def parts() -> Iterator[np.ndarray]:
        yield pytest.fail("a part was asked for")

    with pytest.raises(TransientError, match="the disk is too small for rows"):
        gather(parts(), shape=(2**40, 1000), dtype=np.float32, folder=tmp_path, what="rows")


def test_chunks_cover_every_row_once_within_their_bytes(
    lazy: LazyArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_array, "CHUNK_BYTES", 100)
    found = [lazy[rows] for rows in chunks(lazy)]
    assert [len(one) for one in found] == [5, 5, 5, 5, 3]  # 18 bytes a row
    np.testing.assert_array_equal(np.concatenate(found), WHOLE)
    assert chunks(WHOLE) == [slice(0, 23)]


def test_reading_ahead_gives_the_batches_in_order_and_one_at_a_time() -> None:
    read: list[int] = []
    spied = LazyArray(lambda rows: read.append(int(rows[0])) or WHOLE[rows], WHOLE.shape)
    batches = [np.array([at, 1]) for at in (4, 2, 9, 7, 5)]
    for number, (rows, part) in enumerate(zip(batches, read_ahead(spied, batches), strict=True)):
        np.testing.assert_array_equal(part, WHOLE[rows])
        assert len(read) <= number + 1 + lazy_array.AHEAD
    assert read == [4, 2, 9, 7, 5]


def test_what_a_read_raises_comes_to_the_reader() -> None:
    def broken(rows: np.ndarray) -> np.ndarray:
        raise OSError(f"row {rows[0]}")

    with pytest.raises(OSError, match="row 3"):
        list(read_ahead(LazyArray(broken, WHOLE.shape), [np.array([3])]))
