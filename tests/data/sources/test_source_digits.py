"""The embedded digits: all of them, checked by their content."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fettle.data.sources import Item, digits
from fettle.errors import DataError


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return list(digits.read(digits.Params(), None))


def test_there_are_1797_digits_of_ten_kinds(items: list[Item]) -> None:
    counts = Counter(item.label for item in items)
    assert len(items) == digits.IMAGES == 1797
    assert sorted(map(str, counts)) == list("0123456789")
    assert min(counts.values()) > 170


def test_a_digit_is_an_8_by_8_grey_png_over_the_full_scale(items: list[Item]) -> None:
    drawn = np.stack([np.asarray(Image.open(io.BytesIO(item.encoded))) for item in items])
    assert drawn.shape == (1797, 8, 8)
    assert (drawn.min(), drawn.max()) == (0, 255)


def test_the_first_digit_is_a_zero_with_a_hole(items: list[Item]) -> None:
    drawn = np.asarray(Image.open(io.BytesIO(items[0].encoded)))
    assert (items[0].row, items[0].label) == ("digits/00000", "0")
    assert drawn[3:5, 3:5].max() == 0
    assert drawn[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_data_of_the_user_s_own_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        digits.fingerprint(digits.Params(), Path("/data/photos"))
    assert str(caught.value) == (
        "the source digits brings its own images: got data at /data/photos; it reads no folder. "
        "Fix: set ingest.source: image_folder in params.yaml, or remove `data` from "
        "inputs/local.yaml."
    )


def test_another_scikit_learn_s_digits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = digits.DIGEST
    monkeypatch.setattr(digits, "DIGEST", "0" * 64)
    with pytest.raises(DataError) as caught:
        next(digits.read(digits.Params(), None))
    assert str(caught.value) == (
        "the digits of the installed scikit-learn are not the known ones: got sha256 "
        f"{known[:12]}; it must be 000000000000. Fix: install scikit-learn from requirements.lock."
    )
