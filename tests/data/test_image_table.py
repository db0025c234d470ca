"""Image table: a split is read by row group, a few images at a time, and no further than asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fettle.data import image_table

ROWS = 40
ENCODED = [bytes([at]) * (1 + at % 7) for at in range(ROWS)]
SPLIT_OF = ["train", "train", "validation", "train", "test"] * (ROWS // 5)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """ingest and validate: five row groups of 8; every seventh image is set aside."""
    ingest, validate = tmp_path / "ingest", tmp_path / "validate"
    ingest.mkdir()
    validate.mkdir()
    table = pa.table(
        {
            **{name: [None] * ROWS for name in image_table.SCHEMA.names},
            "row": [f"r{at}" for at in range(ROWS)],
            "label": [("dog", "cat")[at % 2] for at in range(ROWS)],
            "group": [f"g{at}" if at % 3 else None for at in range(ROWS)],
            "split": SPLIT_OF,
            "error": ["broken" if at == 6 else None for at in range(ROWS)],
            "bytes": ENCODED,
        },
        schema=image_table.SCHEMA,
    )
    groups = [table.slice(at, 8) for at in range(0, ROWS, 8)]
    image_table.write(ingest / image_table.IMAGES, image_table.SCHEMA, groups)
    passed = [f"r{at}" for at in range(ROWS) if at % 7]
    pq.write_table(pa.table({"row": passed}), validate / image_table.ROWS)
    return ingest, validate


def expected(split: str) -> list[int]:
    return [at for at in range(ROWS) if SPLIT_OF[at] == split and at % 7]


@pytest.mark.parametrize("split", image_table.SPLITS)
def test_a_split_is_its_rows_that_passed_in_the_order_of_the_table(
    folders: tuple[Path, Path], split: str
) -> None:
    found, wanted = image_table.read_split(*folders, split), expected(split)
    assert found.ids == [f"r{at}" for at in wanted]
    assert found.encoded == [ENCODED[at] for at in wanted]
    assert found.classes == ["cat", "dog"]
    assert [found.classes[label] for label in found.labels] == [
        ("dog", "cat")[at % 2] for at in wanted
    ]
    assert found.groups == [f"g{at}" if at % 3 else None for at in wanted]


def test_the_first_rows_are_the_first_of_everything(folders: tuple[Path, Path]) -> None:
    whole = image_table.read_rows(*folders, "train")
    few = whole.first(4)
    assert (few.ids, few.labels, few.groups) == (whole.ids[:4], whole.labels[:4], whole.groups[:4])
    assert few.places.tolist() == expected("train")[:4]
    assert whole.first(None).ids == whole.ids


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_images_are_found_at_their_places(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(image_table, "READ_IMAGES", at_once)
    for places in ([], [0], [39], [7, 8], [3, 9, 10, 31], list(range(ROWS))):
        found = image_table.read_encoded(
            folders[0] / image_table.IMAGES, np.asarray(places, dtype=np.int64)
        )
        assert list(found) == [ENCODED[at] for at in places]


def test_row_groups_without_a_wanted_image_are_not_read(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    own = pq.ParquetFile.iter_batches

    def spied(file: pq.ParquetFile, *words: object, **named: list[int]) -> object:
        read.extend(named["row_groups"])
        return own(file, *words, **named)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    places = np.array([9, 10, 33])
    assert len(list(image_table.read_encoded(folders[0] / image_table.IMAGES, places))) == 3
    assert read == [1, 4]


def test_a_few_images_are_read_by_their_ids_but_for_broken_ones(
    folders: tuple[Path, Path],
) -> None:
    found = image_table.read_images(folders[0] / image_table.IMAGES, ["r21", "r6", "r2", "none"])
    assert list(found.items()) == [("r2", ENCODED[2]), ("r21", ENCODED[21])]


def test_what_a_part_takes_encoded_is_estimated_by_its_share(folders: tuple[Path, Path]) -> None:
    file = folders[0] / image_table.IMAGES
    assert image_table.encoded_bytes(file, ROWS) == file.stat().st_size
    assert image_table.encoded_bytes(file, ROWS // 4) == file.stat().st_size // 4
