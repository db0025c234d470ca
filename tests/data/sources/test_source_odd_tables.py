"""Tables as spreadsheets and pandas leave them: read as they are meant, or refused by the row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_photos

from fettle.data.sources import image_folder
from fettle.data.sources.image_folder import Params
from fettle.errors import DataError

FILES = [f"{label}/{n:03d}.jpg" for label in ("cat", "dog") for n in range(3)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny_photos.fill(tmp_path / "photos", ["cat", "dog"], 3)


def labels(path: Path) -> list[str | None]:
    return [item.label for item in image_folder.read(Params(), path)]


def csv(folder: Path, text: str) -> Path:
    (folder / "list.csv").write_text(text)
    return folder / "list.csv"


def parquet(folder: Path, column: pa.Array) -> Path:
    pq.write_table(pa.table({"path": FILES, "label": column}), folder / "list.parquet")
    return folder / "list.parquet"


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        labels(path)
    return str(caught.value)


NUMBERS = [
    (pa.array([0.0, 0.0, float("nan"), 1.0, 1.0, 1.0]), ["0", "0", None, "1", "1", "1"]),
    (pa.array([0, 0, None, 1, 1, 1]), ["0", "0", None, "1", "1", "1"]),
    (pa.array([0.0, 0.0, None, 1.0, 1.0, 1.0], pa.float32()), ["0", "0", None, "1", "1", "1"]),
    (pa.array(["a", "a", "", "b", "b", None]), ["a", "a", None, "b", "b", None]),
    (pa.array(["a", "a", "nan", "b", "b", "b"]), ["a", "a", "nan", "b", "b", "b"]),
]


@pytest.mark.parametrize(("column", "wanted"), NUMBERS)
def test_a_missing_number_is_no_class(
    photos: Path, column: pa.Array, wanted: list[str | None]
) -> None:
    assert labels(parquet(photos, column)) == wanted


def test_a_row_of_more_cells_than_the_header_is_refused(photos: Path) -> None:
    path = csv(photos, "path,label\ncat/000.jpg,cat\ndog/000.jpg,dog,big\ndog/001.jpg,dog,old\n")
    assert refusal(path) == (
        f"{path}, row 2: more cells than the header has: got 2 such rows; every row has the "
        "columns of the header. Fix: put a name that holds a comma in double quotes."
    )


def test_a_comma_at_the_end_of_each_line_is_taken(photos: Path) -> None:
    path = csv(photos, "path,label\ncat/000.jpg,cat,\ndog/000.jpg,dog,\n")
    assert labels(path) == ["cat", "dog"]


def test_a_column_named_twice_is_refused(photos: Path) -> None:
    path = csv(photos, "path,label,label\ncat/000.jpg,cat,a\ndog/000.jpg,dog,b\n")
    assert refusal(path) == (
        f"{path} has the column label twice: got the columns path, label, label; one column of "
        "that name is read. Fix: rename one of them."
    )


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_columns_apart_by_another_mark_are_refused_with_the_way_out(
    photos: Path, mark: str
) -> None:
    path = csv(photos, f"path{mark}label\ncat/000.jpg{mark}cat\n")
    assert refusal(path).endswith("Fix: separate the columns by commas.")
