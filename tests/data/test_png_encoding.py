"""The PNG writer: Pillow reads back what went in."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fettle.data.png_encoding import grey_png


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_pillow_reads_back_the_same_pixels(height: int, width: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    with Image.open(io.BytesIO(grey_png(drawn))) as image:
        image.verify()
    with Image.open(io.BytesIO(grey_png(drawn))) as image:
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(image), drawn)


def test_the_same_pixels_give_the_same_bytes() -> None:
    drawn = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert grey_png(drawn) == grey_png(drawn.copy())
