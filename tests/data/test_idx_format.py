"""IDX files: read whole, or refused with what is wrong in the header."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fettle.data.idx_format import find, parse, unpack
from fettle.errors import DataError

HEADER = struct.pack(">BBBBIII", 0, 0, 8, 3, 2, 3, 4)
RULE = "it begins with the bytes 0, 0, 8, number of dimensions"


def test_an_array_comes_back_in_its_shape() -> None:
    array = parse(HEADER + bytes(range(24)), "images")
    assert array.shape == (2, 3, 4)
    assert array.ravel().tolist() == list(range(24))
    assert array.dtype == np.uint8


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b"PK\x03\x04rest",
            f"images is no IDX file of bytes: got the first bytes [80, 75, 3, 4]; {RULE}.",
        ),
        (b"\0\0", f"images is no IDX file of bytes: got the first bytes [0, 0]; {RULE}."),
        (
            b"\0\0\x08\0",
            f"images is no IDX file of bytes: got the first bytes [0, 0, 8, 0]; {RULE}.",
        ),
        (
            HEADER[:10],
            "images is no IDX file of bytes: got 10 bytes; its header is cut short.",
        ),
        (
            HEADER + bytes(23),
            "images has the wrong length: got 23 values; its header says 2 x 3 x 4 = 24. "
            "Fix: fetch it again.",
        ),
    ],
)
def test_what_is_no_idx_file_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(data, "images")
    assert str(caught.value) == text


def test_a_gzipped_file_and_a_plain_one_give_the_same() -> None:
    assert unpack(gzip.compress(HEADER), "images") == unpack(HEADER, "images") == HEADER


def test_a_gzip_file_cut_short_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        unpack(gzip.compress(bytes(1000))[:-9], "images.gz")
    assert str(caught.value) == (
        "images.gz is no whole gzip file: got Compressed file ended before the end-of-stream "
        "marker was reached. Fix: delete it and fetch it again."
    )


def test_the_gzipped_file_is_found_before_the_plain_one(tmp_path: Path) -> None:
    assert find(tmp_path, "a") is None
    (tmp_path / "a").touch()
    assert find(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a.gz").touch()
    assert find(tmp_path, "a") == tmp_path / "a.gz"
