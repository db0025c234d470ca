"""The memory benchmark: its photos are all different, and its rows say what grew or what failed."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import memory
from benchmarks.memory_rows import photo_set

COUNTS = (2000, 20_000)


def test_no_two_photos_have_the_same_bytes_and_each_opens(tmp_path: Path) -> None:
    photo_set.make_photos(tmp_path, 440, 16)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 440
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 440
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(photo_set.CLASSES)
    for file in files[::40]:
        with Image.open(file) as image:
            assert (image.size, image.format) == ((16, 16), "JPEG")
            assert image.info["comment"] == f"photo {int(file.stem)}".encode()


def test_a_comment_leaves_the_picture_as_it_is() -> None:
    plain = photo_set.drawing(np.random.default_rng(1), 2, 24)
    pixels = [
        np.asarray(Image.open(io.BytesIO(one)))
        for one in (plain, photo_set.with_comment(plain, "x"))
    ]
    np.testing.assert_array_equal(*pixels)


def test_the_goal_is_held_to_the_run_that_grew_most() -> None:
    for last, verdict in ((240.0, "met"), (260.0, "missed")):
        pairs = [(150.0, 175.5), (155.0, last)]
        row = memory.growth("ingest", pairs, counts=COUNTS, side_px=64)
        assert row.what == "ingest: peak memory at 20,000 photos of 64 px above 2,000"
        assert (row.low, row.high, row.n) == (25.5, last - 155, 2)
        assert (row.goal, row.verdict) == ("<= 100", verdict)
        assert row.note == f"up to 155 MiB at 2,000, {last:.0f} MiB at 20,000"


def test_one_run_bears_no_goal() -> None:
    row = memory.growth("ingest", [(150.0, 175.5)], counts=COUNTS, side_px=64)
    assert (row.value, row.verdict) == (25.5, "not judged: n = 1")


def test_a_stage_that_failed_is_not_measured_in_its_own_words() -> None:
    for failed in (("no target may ship", 3.0), (3.0, "no target may ship")):
        row = memory.growth("select", [(3.0, 3.0), failed], counts=COUNTS, side_px=64)
        assert row.verdict == "NOT_MEASURED: no target may ship"
