"""Pixel store: the same pixels wherever they lie; where they lie is said; a small disk too."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_photos

from fettle import lazy_array
from fettle.data import pixel_store
from fettle.data.pixel_store import EncodedSplit, decode
from fettle.errors import TransientError
from fettle.lazy_array import LazyArray
from fettle.preprocessing import Preprocess, UnreadableImage

COUNT = 50
PREPROCESS = Preprocess(size_px=6, channels=3, mean=0.5, std=0.5, fit="crop")
ENCODED = [
    tiny_photos.jpeg(at, size_px=9 + at % 4) if at % 3 else tiny_photos.png(at)
    for at in range(COUNT)
]
WHOLE = PREPROCESS.batch(ENCODED)
DECODED_BYTES = WHOLE.nbytes  # 5,400


class Reading:
    """One call of decode, and what it told."""

    def __init__(self, folder: Path, encoded: list[bytes] = ENCODED) -> None:
        self.said: list[str] = []
        self.progress: list[str] = []
        self.streams = 0
        self.split = EncodedSplit(
            name="train",
            count=len(encoded),
            encoded_bytes=sum(map(len, encoded)),
            stream=lambda: self.stream(encoded),
        )
        self.pixels = decode(
            self.split,
            PREPROCESS,
            folder=folder,
            say=self.said.append,
            progress=self.progress.append,
        )

    def stream(self, encoded: list[bytes]) -> Iterator[bytes]:
        self.streams += 1
        return iter(encoded)


@pytest.fixture(params=["memory", "file", "on demand"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "memory":
        monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    if request.param == "on demand":
        monkeypatch.setattr(pixel_store, "DECODED_BYTES_MAX", DECODED_BYTES - 1)
    return str(request.param)


def test_the_pixels_are_those_of_preprocessing_wherever_they_lie(way: str, tmp_path: Path) -> None:
    pixels = Reading(tmp_path).pixels
    assert isinstance(pixels, np.ndarray if way == "memory" else LazyArray)
    assert (len(pixels), pixels.shape) == (COUNT, (COUNT, 3, 6, 6))
    np.testing.assert_array_equal(pixels[:], WHOLE)
    rows = np.random.default_rng(1).permutation(COUNT)[:17]
    np.testing.assert_array_equal(pixels[rows], WHOLE[rows])
    assert list(tmp_path.iterdir()) == []


def test_where_the_pixels_lie_is_said_unless_it_is_in_memory(way: str, tmp_path: Path) -> None:
    assert (
        Reading(tmp_path).said
        == {
            "memory": [],
            "file": ["50 train images: 5.4 kB of pixels are decoded once, into a temporary file"],
            "on demand": [
                "50 train images: 5.4 kB of pixels are decoded anew for each batch: a file for "
                "them would be too large"
            ],
        }[way]
    )


def test_the_source_is_read_once(way: str, tmp_path: Path) -> None:
    reading = Reading(tmp_path)
    reading.pixels[:]
    reading.pixels[5:9]
    assert reading.streams == 1


def test_an_image_that_cannot_be_decoded_is_no_silence(way: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage):
        Reading(tmp_path, [*ENCODED, tiny_photos.corrupt(1)]).pixels[:]


def test_an_empty_split_is_empty(way: str, tmp_path: Path) -> None:
    assert Reading(tmp_path, []).pixels[:].shape == (0, 3, 6, 6)


def test_a_long_decoding_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_store, "REPORT_IMAGES", 20)
    assert Reading(tmp_path).progress == [
        "32 of 50 train images decoded",
        "48 of 50 train images decoded",
    ]


def free(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    """Let the disk have so much free beside what is spared."""
    usage = shutil.disk_usage("/")
    told = usage._replace(free=size_bytes + pixel_store.SPARE_BYTES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: told)


def test_a_disk_with_room_for_the_encoded_images_alone_decodes_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [one for one in ENCODED if one[:4] == b"\x89PNG"] * 3
    plain = Preprocess(size_px=64, channels=3, mean=0.5, std=0.5)
    split = EncodedSplit(
        name="test",
        count=len(small),
        encoded_bytes=sum(map(len, small)),
        stream=lambda: iter(small),
    )
    monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    free(monkeypatch, split.encoded_bytes)
    said: list[str] = []
    pixels = decode(split, plain, folder=tmp_path, say=said.append)
    assert "decoded anew for each batch" in said[0]
    np.testing.assert_array_equal(pixels[:], plain.batch(small))


@pytest.mark.parametrize(
    ("encoded", "what"),
    [
        (tiny_photos.corrupt(1), "the pixels of 50 train images: got 5.4 kB"),
        (b"undecodable", "50 encoded train images: got 550 bytes"),
    ],
)
def test_a_disk_with_room_for_neither_is_refused_before_decoding_by_the_lesser_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: bytes, what: str
) -> None:
    monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    free(monkeypatch, 500)
    with pytest.raises(TransientError) as caught:
        Reading(tmp_path, [encoded] * COUNT)
    assert str(caught.value) == (
        f"the disk is too small for {what} to write, 268 MB free "
        f"in {tmp_path}; they lie in a temporary file while the stage runs, and 268 MB stay free "
        "for the artefacts. Fix: free some space (`fettle doctor` says how much is left), or move "
        "the project to a larger disk, and run again."
    )
