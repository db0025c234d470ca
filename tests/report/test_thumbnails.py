"""Hold the thumbnails: small, from the right rows, and never stopped by a broken image."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from fake_project import CLASSES, png
from fake_tree import Tree
from PIL import Image

from fettle.report import thumbnails


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def decoded(shown: thumbnails.Thumbnail | None) -> Image.Image:
    assert shown
    return Image.open(io.BytesIO(base64.b64decode(shown.uri.partition(",")[2])))


def test_a_tiny_image_is_embedded_as_found_and_marked_for_sharp_pixels() -> None:
    found = png(7, side=8)
    shown = thumbnails.thumbnail(found)
    assert shown == thumbnails.Thumbnail(
        f"data:image/png;base64,{base64.b64encode(found).decode()}", tiny=True
    )


def test_a_photo_shrinks_to_a_few_kilobytes_and_keeps_its_proportions() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (600, 900, 3), dtype=np.uint8)
    shown = thumbnails.thumbnail(encoded(Image.fromarray(noise), "PNG"))
    assert decoded(shown).size == (96, 64)
    assert shown
    assert not shown.tiny
    assert len(shown.uri) < 15_000


def test_a_photo_is_shown_upright() -> None:
    photo = Image.new("RGB", (300, 200))
    tags = Image.Exif()
    tags[0x0112] = 6  # turned by 90 degrees
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=tags)
    assert decoded(thumbnails.thumbnail(buffer.getvalue())).size == (64, 96)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_can_be_shown(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((50, 50), 40_000, dtype=np.uint16))
    else:
        image = Image.new("L", (50, 50), 156).convert(mode)
    shown = decoded(thumbnails.thumbnail(encoded(image, "TIFF" if mode == "CMYK" else "PNG")))
    assert shown.mode in ("L", "RGB")
    if mode != "1":  # black and white has no grey
        assert shown.convert("L").getpixel((25, 25)) == pytest.approx(156, abs=2)


@pytest.mark.parametrize("broken", [b"", b"no image", png(1)[:40]])
def test_what_cannot_be_decoded_is_not_shown(broken: bytes) -> None:
    assert thumbnails.thumbnail(broken) is None


def test_samples_are_training_rows_that_passed_at_most_eight_a_class(finished: Path) -> None:
    artifacts = finished / "artifacts"
    found = thumbnails.samples(artifacts / "ingest", artifacts / "validate")
    assert list(found) == sorted(CLASSES)
    # row `at` has shade 4 * at; rows of class 0 in train are 3, 6, 15, … (0 is in quarantine)
    shades = [decoded(image).getpixel((0, 0)) for image in found["<b>&"]]
    assert shades == [4 * at for at in (3, 6, 15, 18, 21, 30, 33, 36)]


def test_counts_leave_out_the_quarantine(finished: Path) -> None:
    artifacts = finished / "artifacts"
    found = thumbnails.counts(artifacts / "ingest", artifacts / "validate")
    assert found["<b>&"] == {"train": 11, "validation": 4, "test": 4}
    assert found["three"] == {"train": 12, "validation": 4, "test": 4}


def test_mistakes_come_flipped_first_then_by_confidence(tree: Tree) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = dict.fromkeys(thumbnails.COLUMNS)
    rows = [
        ("a", "x", "x", 0.99, "x"),
        ("b", "x", "y", 0.60, "y"),
        ("c", "x", "y", 0.95, "y"),
        ("d", "x", "y", 0.30, "x"),
        ("e", "x", "y", 0.50, "x"),
    ]
    table = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows])
    pq.write_table(table, tree.folder("verdict") / thumbnails.PREDICTIONS)
    wrong, images = thumbnails.mistakes(tree.folder("verdict"))
    assert [one.row for one in wrong] == ["e", "d", "c", "b"]
    assert [one.flipped for one in wrong] == [True, True, False, False]
    assert images == 5


def test_a_mistake_whose_image_is_gone_is_listed_without_it(tree: Tree) -> None:
    wrong = [thumbnails.Wrong("nowhere", "x", "y", 0.5, "x")]
    [shown] = thumbnails.show(wrong, tree.folder("ingest"))
    assert shown.image is None
    assert shown.flipped
