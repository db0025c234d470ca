"""Folders that name splits: taken in either nesting, or refused where two readings are open."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import tiny_photos

from fettle.data.folder_layout import split_of
from fettle.data.sources import Item, image_folder
from fettle.data.sources.image_folder import Params
from fettle.errors import DataError

RULE = (
    "it holds a folder for each class, or train, validation and test with the classes in each, or "
    "the classes with train, validation and test in each. Fix: "
)
FIX = "rename or move these folders, or, if they are classes, set ingest.options.splits: classes."


def made(root: Path, *folders: str) -> Path:
    for index, folder in enumerate(folders):
        tiny_photos.place(root, f"{folder}/a.png", tiny_photos.png(2 * index))
        tiny_photos.place(root, f"{folder}/b.png", tiny_photos.png(2 * index + 1))
    return root


def read(root: Path, **options: str) -> list[Item]:
    params = Params.model_validate(options)
    assert image_folder.fingerprint(params, root)["images"]
    return list(image_folder.read(params, root))


def found(root: Path, **options: str) -> Counter[tuple[str | None, str | None]]:
    return Counter((item.split, item.label) for item in read(root, **options))


def refusal(root: Path, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **options)
    return str(caught.value)


def crossed(splits: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(split, label) for split in splits for label in ("cat", "dog")]


NAMES = [
    ("train", "val", "test"),
    ("Train", "VALID", "Test"),
    ("training_set", "validation_set", "test_set"),
    ("trainset", "dev", "testing"),
    ("train", "test"),
    ("train", "validation"),
]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("around", ["split", "class"])
def test_the_splits_of_the_folders_are_taken_in_either_nesting(
    tmp_path: Path, names: tuple[str, ...], around: str
) -> None:
    pairs = crossed(names)
    root = made(
        tmp_path / "d", *(f"{s}/{c}" if around == "split" else f"{c}/{s}" for s, c in pairs)
    )
    assert found(root) == {(split_of(split), label): 2 for split, label in pairs}


def test_train_alone_is_a_split_around_the_classes(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "train/cat", "train/dog")
    assert found(root) == {("train", "cat"): 2, ("train", "dog"): 2}


def test_classes_may_be_nested_within_a_split(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "train/cat/anna", "train/dog", "test/cat", "test/dog/bob")
    assert found(root)["train", "cat"] == 2
    assert found(root)["test", "dog"] == 2


def test_a_group_is_looked_for_below_the_class(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "train/cat/anna", "train/dog/bob", "test/cat/eve", "test/dog/joe")
    groups = {item.group for item in read(root, group_pattern="^[^/]+")}
    assert groups == {"anna", "bob", "eve", "joe"}


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "bus", "car"),
        ("test", "exam"),
        ("train/steam", "train/diesel", "bus/red", "car/blue"),
        ("cat/front", "cat/back", "dog/front", "dog/back"),
        ("test tube", "train station"),
        ("cat/train", "dog/bed"),
    ],
)
def test_a_class_may_bear_the_name_of_a_split(tmp_path: Path, folders: tuple[str, ...]) -> None:
    root = made(tmp_path / "d", *folders)
    assert {split for split, _ in found(root)} == {None}
    assert {label for _, label in found(root)} == {folder.split("/")[0] for folder in folders}


@pytest.mark.parametrize(
    ("folders", "got"),
    [
        (
            ("train/cat", "train/dog", "test/cat", "test/dog", "extra"),
            "'test', 'train', 'extra': 'test', 'train' read as splits, 'extra' not",
        ),
        (
            ("train/cat", "train/dog", "holdout/cat", "holdout/dog"),
            "'train', 'holdout': 'train' read as splits, 'holdout' not",
        ),
        (
            ("cat/train", "cat/test", "dog"),
            "'cat/test', 'cat/train', 'dog': 'cat' is divided into splits, and 'dog' holds "
            "something "
            "else",
        ),
        (
            ("train/cat", "train/dog", "val/cat", "val/dog", "valid/cat", "valid/dog"),
            "'val', 'valid': both name the split validation",
        ),
        (
            ("train/train", "test/test"),
            "'test/test', 'train/train': splits lie within splits",
        ),
        (
            ("seg_train/sea", "seg_train/wood", "seg_test/sea", "seg_test/wood"),
            "'seg_test', 'seg_train': the names speak of splits, and the same classes lie in each",
        ),
        (
            ("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog", "fold_3/cat"),
            "'fold1', 'fold2', 'fold_3': the names speak of splits, and the same classes lie in "
            "each",
        ),
    ],
)
def test_a_layout_that_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, folders: tuple[str, ...], got: str
) -> None:
    root = made(tmp_path / "d", *folders)
    assert refusal(root) == f"the folders of {root} can be read in two ways: got {got}; {RULE}{FIX}"
    labels = {label for _, label in found(root, splits="classes")}
    assert labels == {folder.split("/")[0] for folder in folders}


def test_splits_without_class_folders_are_refused(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "train/cat", "train/dog", "test")
    assert refusal(root) == (
        f"the folders of {root} can be read in two ways: got 'test': they read as splits, and have "
        f"no class folders; {RULE}put a folder for each class into each of them, or name a CSV or "
        "Parquet file with path, label and split; if they are the classes, set "
        "ingest.options.splits: classes."
    )


def test_splits_without_train_are_refused(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "val/cat", "val/dog", "test/cat", "test/dog")
    assert refusal(root) == (
        f"the splits of {root} have no train among them: got 'test', 'val'; training needs images. "
        f"Fix: {FIX}"
    )


def test_splits_with_different_classes_are_refused_with_the_likely_slip(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "train/zebra", "train/horse", "test/zebra", "test/horsse")
    assert refusal(root) == (
        f"the splits of {root} do not have the same classes: got 'horse' is not in test, did you "
        "mean 'horsse'?, 'horsse' is not in train, did you mean 'horse'?; the splits that the data "
        "names are kept, and every class is trained and judged. Fix: add images, mend the class's "
        "name, take the class out, or let all images be divided anew with ingest.options.splits: "
        "redraw."
    )


def test_redraw_keeps_the_classes_and_lets_the_splits_go(tmp_path: Path) -> None:
    root = made(tmp_path / "d", *(f"{s}/{c}" for s, c in crossed(("train", "test"))))
    assert found(root, splits="redraw") == {(None, "cat"): 4, (None, "dog"): 4}


def test_images_beside_the_classes_have_no_label_and_hold_nothing_up(tmp_path: Path) -> None:
    root = made(tmp_path / "d", *(f"{s}/{c}" for s, c in crossed(("train", "test"))))
    tiny_photos.place(root, "stray.png", tiny_photos.png(90))
    tiny_photos.place(root, "test/stray.png", tiny_photos.png(91))
    beside = {item.row: item.split for item in read(root) if item.label is None}
    assert beside == {"stray.png": "train", "test/stray.png": "test"}


def test_a_name_with_its_accents_taken_apart_is_the_same_class(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "Käse")
    root = made(tmp_path / "d", "train/Käse", "train/Brot", f"test/{apart}", "test/Brot")
    assert {label for _, label in found(root)} == {"Käse", "Brot"}


def test_a_folder_around_the_data_is_named(tmp_path: Path) -> None:
    root = made(tmp_path / "d", *(f"set1/{s}/{c}" for s, c in crossed(("train", "test"))))
    tiny_photos.place(root, "set1/README.md", b"where these come from")
    assert refusal(root).endswith(
        f"Fix: name {root / 'set1'}, if the classes lie in that, or add a folder for each "
        "other class."
    )


def test_a_csv_file_s_splits_may_be_written_as_a_folder_s(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "cat", "dog")
    lines = [
        f"{c}/{f}.png,{c},{s}" for c in ("cat", "dog") for f, s in (("a", "Train"), ("b", "val"))
    ]
    table = root / "list.csv"
    table.write_text("path,label,split\n" + "\n".join(lines))
    assert found(table) == dict.fromkeys(crossed(("train", "validation")), 1)
    assert {split for split, _ in found(table, splits="redraw")} == {None}


def test_a_csv_file_from_windows_names_its_images_with_backslashes(tmp_path: Path) -> None:
    root = made(tmp_path / "d", "cat", "dog")
    table = root / "list.csv"
    table.write_text("path,label\ncat\\a.png,cat\ndog\\b.png,dog\n")
    assert [item.row for item in read(table)] == ["cat/a.png", "dog/b.png"]
