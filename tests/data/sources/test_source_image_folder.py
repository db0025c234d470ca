"""The user's own images: folders and manifests, what is listed, and every refusal's text."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_photos
from pydantic import ValidationError

from fettle.data.sources import Item, image_folder
from fettle.data.sources.image_folder import Params
from fettle.errors import DataError


def read(location: Path | None, **options: str) -> list[Item]:
    return list(image_folder.read(Params(**options), location))


def digest(location: Path) -> object:
    return image_folder.fingerprint(Params(), location)["digest"]


def refusal(location: Path | None, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read(location, **options)
    return str(caught.value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny_photos.fill(tmp_path / "photos", ["cat", "dog"], 3)


def table(folder: Path, text: str) -> Path:
    path = folder / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_a_class_gives_a_row_a_file(photos: Path) -> None:
    items = read(photos)
    assert [item.row for item in items] == [
        f"{label}/{at:03d}.jpg" for label in ("cat", "dog") for at in range(3)
    ]
    assert [item.label for item in items] == ["cat"] * 3 + ["dog"] * 3
    assert items[0].encoded == (photos / "cat" / "000.jpg").read_bytes()
    assert {(item.group, item.split, item.error) for item in items} == {(None, None, None)}


def test_folders_within_a_class_belong_to_it(photos: Path) -> None:
    tiny_photos.place(photos, "cat/anna/2024/x.png", tiny_photos.png(9))
    assert ("cat/anna/2024/x.png", "cat") in [(i.row, i.label) for i in read(photos)]


def test_hidden_and_system_files_are_left_out(photos: Path) -> None:
    before = digest(photos)
    for row in ("cat/.DS_Store", "cat/Thumbs.db", "__MACOSX/a.jpg", ".git/a.jpg", "README.md"):
        tiny_photos.place(photos, row, b"x")
    assert len(read(photos)) == 6
    assert digest(photos) == before


def test_a_file_that_is_no_image_becomes_a_row_for_validation_to_explain(photos: Path) -> None:
    tiny_photos.place(photos, "dog/notes.txt", b"good dog")
    assert "dog/notes.txt" in [item.row for item in read(photos)]


def test_an_image_beside_the_class_folders_has_no_label(photos: Path) -> None:
    tiny_photos.place(photos, "stray.jpg", tiny_photos.jpeg(77))
    assert [item.row for item in read(photos) if item.label is None] == ["stray.jpg"]


def test_a_linked_folder_is_followed_but_never_in_a_circle(photos: Path, tmp_path: Path) -> None:
    elsewhere = tiny_photos.fill(tmp_path / "more", ["x"], 2)
    (photos / "cat" / "linked").symlink_to(elsewhere / "x")
    (photos / "dog" / "circle").symlink_to(photos / "dog")
    rows = [item.row for item in read(photos)]
    assert rows.count("cat/linked/000.jpg") == 1
    assert len(rows) == 8


def test_a_name_with_odd_bytes_can_be_written(photos: Path) -> None:
    odd = os.fsencode(photos / "cat") + b"/caf\xe9.jpg"
    Path(os.fsdecode(odd)).write_bytes(tiny_photos.jpeg(5))
    rows = [item.row for item in read(photos)]
    assert "cat/caf\\xe9.jpg" in rows
    assert all(row.encode() for row in rows)


def test_the_digest_changes_if_and_only_if_the_content_does(photos: Path, tmp_path: Path) -> None:
    first = digest(photos)
    assert digest(photos) == first
    assert digest(photos.rename(tmp_path / "moved")) == first
    moved = tmp_path / "moved"
    seen = {first}
    tiny_photos.place(moved, "cat/000.jpg", tiny_photos.jpeg(99))
    seen.add(digest(moved))
    (moved / "cat" / "001.jpg").rename(moved / "dog" / "009.jpg")
    seen.add(digest(moved))
    (moved / "dog" / "009.jpg").unlink()
    seen.add(digest(moved))
    assert len(seen) == 4


def test_groups_come_from_a_pattern_in_the_path_below_the_class(tmp_path: Path) -> None:
    for row in ("cat/anna_1.jpg", "cat/anna_2.jpg", "dog/bob_1.jpg", "dog/x.jpg"):
        tiny_photos.place(tmp_path / "p", row, b"x")
    whole = [item.group for item in read(tmp_path / "p", group_pattern="^[a-z]+_")]
    assert whole == ["anna_", "anna_", "bob_", None]
    first = [item.group for item in read(tmp_path / "p", group_pattern="^([a-z]+)_")]
    assert first == ["anna", "anna", "bob", None]
    named = [item.group for item in read(tmp_path / "p", group_pattern="(_)(?P<group>[0-9])")]
    assert named == ["1", "2", "1", None]


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(ValidationError, match="no valid regular expression: missing \\)"):
        Params(group_pattern="(")


def test_a_pattern_that_matches_nothing_is_refused(photos: Path) -> None:
    assert refusal(photos, group_pattern="person(.)") == (
        "no image gets a group from ingest.options.group_pattern: got 'person(.)'; the first image "
        "is 'cat/000.jpg'; it is searched in the path below the class folder. Fix: mend the "
        "pattern, or set it to null."
    )


def test_no_data_is_refused() -> None:
    assert refusal(None) == (
        "the source image_folder was given no data; it reads a folder for each class, or a "
        "CSV/Parquet file with path and label. Fix: name it with `fettle run --data PATH` or as "
        "ingest.options.path in params.yaml."
    )


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone") == (
        f"there is no data folder {tmp_path / 'gone'}; it holds one folder a class. Fix: name it "
        "with `fettle run --data FOLDER` or as ingest.options.path in params.yaml."
    )


@pytest.mark.parametrize(
    ("files", "got"),
    [
        ([], "an empty folder"),
        (["a.jpg", "b.PNG"], "2 images directly in it"),
        (["photos.zip"], "1 files, no image among them"),
    ],
)
def test_a_folder_without_classes_is_refused(tmp_path: Path, files: list[str], got: str) -> None:
    root = tmp_path / "flat"
    root.mkdir()
    for name in files:
        (root / name).write_bytes(b"x")
    assert refusal(root) == (
        f"the data folder {root} has no class folders: got {got}; it holds one folder a class, "
        "with that class's images. Fix: sort the images into folders, or name a CSV or Parquet "
        "file with path and label."
    )


def test_an_empty_class_is_refused(photos: Path) -> None:
    (photos / "fox").mkdir()
    assert refusal(photos) == (
        f"1 of 3 classes in {photos} have no files: got 'fox'; every class folder holds images of "
        "that class. Fix: add images or delete the folder."
    )


def test_many_empty_classes_are_counted_and_a_few_named(photos: Path) -> None:
    for name in "vwxyz":
        (photos / name).mkdir()
    assert "5 of 7 classes" in refusal(photos)
    assert "got 'v', 'w', 'x' and 2 more;" in refusal(photos)


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    root = tiny_photos.fill(tmp_path / "photos", ["cat"], 3)
    assert refusal(root) == (
        f"{root} has one class: got 'cat' (3 files); a classifier needs at least two. Fix: add a "
        "folder for each other class."
    )


def test_an_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    path.write_bytes(b"PK")
    assert refusal(path) == (
        f"{path} cannot be read as a data set: got a file of type '.zip'; data is a folder, or a "
        ".csv or .parquet file. Fix: unpack it first, if it is an archive."
    )


def test_a_folder_that_cannot_be_opened_is_refused_not_left_out(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = photos / "cat" / "locked"
    locked.mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert refusal(photos) == (
        f"the folder {locked} cannot be opened: got 'Permission denied'; every folder of the data "
        "is read. Fix: make it readable, or take it out of the data."
    )


def test_a_file_that_cannot_be_read_is_a_row_with_an_error(photos: Path) -> None:
    (photos / "cat" / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    lost = next(item for item in read(photos) if item.row == "cat/gone.jpg")
    assert (lost.encoded, lost.error) == (
        b"",
        "the file cannot be read: No such file or directory",
    )


def test_a_file_too_large_for_an_image_is_not_read(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_folder, "FILE_BYTES_MAX", 1000)
    tiny_photos.place(photos, "cat/film.jpg", bytes(1001))
    large = next(item for item in read(photos) if item.row == "cat/film.jpg")
    assert (large.encoded, large.error) == (b"", "the file has 1,001 bytes, above 1,000")


def test_a_csv_file_names_path_label_group_and_split(photos: Path) -> None:
    text = (
        "path,label,group,split,camera\n"
        "cat/000.jpg,Katze,anna,,x\ndog/000.jpg,Hund,bob,test,y\ncat/001.jpg,,,,z\n"
    )
    items = read(table(photos, text))
    assert [(i.row, i.label, i.group, i.split) for i in items] == [
        ("cat/000.jpg", "Katze", "anna", None),
        ("cat/001.jpg", None, None, None),
        ("dog/000.jpg", "Hund", "bob", "test"),
    ]
    assert items[2].encoded == (photos / "dog" / "000.jpg").read_bytes()


def test_a_parquet_file_gives_the_same_as_a_csv_file(photos: Path) -> None:
    lines = {"path": ["cat/000.jpg", "dog/000.jpg"], "label": [7, 8]}
    pq.write_table(pa.table(lines), photos / "list.parquet")
    csv = table(photos, "path,label\ncat/000.jpg,7\ndog/000.jpg,8\n")
    assert read(photos / "list.parquet") == read(csv)


def test_a_file_named_twice_is_two_rows(photos: Path) -> None:
    text = "path,label\ncat/000.jpg,cat\ncat/000.jpg,dog\n./cat/000.jpg,dog\n"
    rows = [item.row for item in read(table(photos, text))]
    assert rows == ["cat/000.jpg", "cat/000.jpg#2", "cat/000.jpg#3"]


def test_a_csv_file_from_a_spreadsheet_may_begin_with_a_byte_order_mark(photos: Path) -> None:
    text = "\ufeffpath,label\ncat/000.jpg,cat\ndog/000.jpg,dog\n"
    assert len(read(table(photos, text))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\n", "{path} has no rows; it has one row an image. Fix: fill it."),
        (
            "file,label\na,b\n",
            "{path} has no column path: got the columns file, label; it needs path and label, and "
            "may have group and split. Fix: rename or add the column.",
        ),
        (
            "",
            "{path} has no column path and no column label: got the columns (none); it needs path "
            "and label, and may have group and split. Fix: rename or add the column.",
        ),
        (
            "path,label\ncat/000.jpg,cat\n,dog\n",
            "{path}, row 2: no path; every row names an image.",
        ),
        (
            "path,label,split\ncat/000.jpg,cat,validatoin\n",
            "{path}, row 1: unknown split: got 'validatoin', did you mean 'validation'?; it is "
            "train, validation, test, or empty.",
        ),
        (
            "path,label\ncat/000.jpg,cat\ndog/777.jpg,dog\n",
            "1 of 2 images that {path} names do not exist: got 'dog/777.jpg'; a relative path "
            "starts at the folder of that file. Fix: mend the path column, or delete those rows.",
        ),
        (
            "path,label\ncat/000.jpg,cat\ncat/001.jpg,cat\n",
            "{path} has one class: got 'cat' (2 files); a classifier needs at least two. Fix: add "
            "rows of another class.",
        ),
        (
            "path,label\ncat/000.jpg,\n",
            "{path} has 0 classes: got no label; a classifier needs at least two. Fix: fill the "
            "label column.",
        ),
    ],
)
def test_a_broken_csv_file_is_refused(photos: Path, text: str, said: str) -> None:
    path = table(photos, text)
    assert refusal(path) == said.format(path=path)


def test_a_csv_file_in_another_encoding_is_refused(photos: Path) -> None:
    path = photos / "list.csv"
    path.write_bytes("path,label\ncat/000.jpg,Käse\n".encode("latin-1"))
    text = refusal(path)
    assert text.startswith(f"{path} is no CSV file: got 'utf-8' codec can't decode byte 0xe4")
    assert text.endswith("; it is UTF-8 text with a header line.")


def test_a_broken_parquet_file_is_refused(photos: Path) -> None:
    path = photos / "list.parquet"
    path.write_bytes(b"PAR1 but no more")
    assert refusal(path).startswith(f"{path} is no Parquet file of text columns: got ")


def test_a_pipe_among_the_images_is_a_row_with_an_error_and_holds_nothing_up(photos: Path) -> None:
    os.mkfifo(photos / "cat" / "pipe.jpg")
    assert digest(photos)
    pipe = next(item for item in read(photos) if item.row == "cat/pipe.jpg")
    assert (pipe.encoded, pipe.error) == (b"", "no file but a pipe, a socket or a device")
