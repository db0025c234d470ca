"""Ingest: one row an image, nothing lost, the same bytes for the same data and seed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_photos
from tiny_project import settings

from fettle import manifest
from fettle.data import image_table
from fettle.data.image_table import SPLITS
from fettle.data.sources import Item, image_folder
from fettle.errors import DataError, OurFault, ProjectError
from fettle.local_settings import location, set_local
from fettle.params import Params
from fettle.recorder import MemoryRecorder
from fettle.scratch_file import ScratchFile
from fettle.stage_contract import Inputs, Outputs
from stages import ingest

FOLDER = "ingest.source=image_folder"
BAD: dict[str, tuple[bytes, str | None]] = {
    "empty.jpg": (b"", "an empty file (0 bytes)"),
    "text.jpg": (b"<html>404</html>", "no image but text"),
    "corrupt.jpg": (tiny_photos.corrupt(1), "cannot be decoded: "),
    "cmyk.jpg": (tiny_photos.cmyk(2), None),
    "sixteen.png": (tiny_photos.sixteen_bit(3), None),
}


class Desk:
    """A project in a folder: run ingest on it as the command does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.photos = root / "photos"

    def refresh(self) -> None:
        """Do as fettle/project.py: name the source's content, so that the cache is keyed by it."""
        place = location(self.root, image_folder.Params())
        source = image_folder.fingerprint(image_folder.Params(), place)
        manifest.write_json(
            self.root / "inputs" / "source.json", {"source": "image_folder", **source}
        )

    def run(self, *overrides: str, name: str = "out") -> tuple[Outputs, Path]:
        params = settings(FOLDER, *overrides)
        self.refresh()
        return self.run_stale(params, name)

    def run_stale(self, params: Params, name: str = "out") -> tuple[Outputs, Path]:
        out = self.root / name
        out.mkdir(exist_ok=True)
        inputs = Inputs({}, self.root, self.root / "scratch")
        return ingest.run(params, inputs, out, MemoryRecorder()), out / image_table.IMAGES


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["row"]: row for row in pq.read_table(path).to_pylist()}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FETTLE_ROOT", raising=False)
    made = Desk(tmp_path)
    tiny_photos.fill(made.photos, ["cat", "dog"], 10)
    set_local(tmp_path, "data", made.photos)
    return made


def test_every_file_is_one_row_in_the_stated_schema(desk: Desk) -> None:
    outputs, path = desk.run()
    assert pq.read_schema(path).equals(image_table.SCHEMA)
    rows = rows_of(path)
    assert len(rows) == 20
    one = rows["cat/003.jpg"]
    assert one["bytes"] == (desk.photos / "cat" / "003.jpg").read_bytes()
    assert (one["label"], one["format"], one["mode"]) == ("cat", "JPEG", "RGB")
    assert (one["width"], one["height"], one["error"]) == (10, 10, None)
    assert outputs.facts.rows == 20
    assert outputs.facts.source == "image_folder"


def test_the_facts_count_what_the_table_holds(desk: Desk) -> None:
    outputs, _ = desk.run()
    assert outputs.facts.classes == {
        label: {"train": 4, "validation": 1, "test": 5} for label in ("cat", "dog")
    }
    assert (
        outputs.facts.digest
        == json.loads((desk.root / "inputs" / "source.json").read_text())["digest"]
    )
    json.dumps(outputs.facts.to_json())


def test_the_same_data_and_seed_give_the_same_bytes(desk: Desk) -> None:
    first, second = desk.run(name="one")[1], desk.run(name="two")[1]
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_another_order_and_split(desk: Desk) -> None:
    first = pq.read_table(desk.run(name="one")[1], columns=["row", "split"])
    second = pq.read_table(desk.run("seed=21", name="two")[1], columns=["row", "split"])
    assert first["row"].to_pylist() != second["row"].to_pylist()
    assert sorted(zip(*first.to_pydict().values(), strict=True)) != sorted(
        zip(*second.to_pydict().values(), strict=True)
    )


def in_fold(number: int) -> str:
    fold = f"fold: {{number: {number}, of: 5}}"
    return f"ingest.split={{train: 0.4, validation: 0.1, test: 0.5, {fold}}}"


def test_the_folds_of_a_cross_fit_test_every_image_once(desk: Desk) -> None:
    tested = [
        row
        for number in range(1, 6)
        for row, one in rows_of(desk.run(in_fold(number), name=str(number))[1]).items()
        if one["split"] == "test"
    ]
    assert len(tested) == 20
    assert len(set(tested)) == 20


def test_data_with_splits_of_its_own_has_no_folds() -> None:
    items = [Item(f"{index}", "cat", None, split, b"") for index, split in enumerate(SPLITS)]
    split = settings(FOLDER, in_fold(1)).ingest.split
    with pytest.raises(DataError) as caught:
        ingest.assign_splits(items, split, 20)
    assert str(caught.value) == (
        "the data names splits of its own, so it has no folds: got test, train, validation; "
        "cross-fitting tests every row once, by a model that never saw it. Fix: take "
        "ingest.split.fold out of the params (`fettle crossfit` sets it): the data's own test set "
        "judges; or let image_folder divide all anew: ingest.options.splits: redraw."
    )


def test_the_rows_are_shuffled_over_the_classes(desk: Desk) -> None:
    labels = pq.read_table(desk.run()[1], columns=["label"])["label"].to_pylist()
    assert set(labels[:8]) == {"cat", "dog"}


def test_where_the_folder_lies_plays_no_part(desk: Desk) -> None:
    first = desk.run(name="one")[1].read_bytes()
    moved = desk.photos.rename(desk.root / "elsewhere")
    set_local(desk.root, "data", moved)
    assert desk.run(name="two")[1].read_bytes() == first
    assert str(desk.root).encode() not in first


def test_the_size_of_row_groups_plays_no_part_for_a_reader(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pq.read_table(desk.run(name="one")[1])
    monkeypatch.setattr(ingest, "GROUP_ROWS", 7)
    path = desk.run(name="two")[1]
    assert pq.ParquetFile(path).num_row_groups == 3
    assert pq.read_table(path).equals(whole)


def test_a_row_group_ends_when_its_images_are_large(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "GROUP_BYTES", 1)
    assert pq.ParquetFile(desk.run()[1]).num_row_groups == 20


def test_groups_never_straddle_splits(desk: Desk) -> None:
    outputs, path = desk.run("ingest.options={group_pattern: '([0-9])[.]'}")
    homes = defaultdict(set)
    for row in rows_of(path).values():
        homes[row["group"]].add(row["split"])
    assert len(homes) == outputs.facts.groups == 10
    assert all(len(home) == 1 for home in homes.values())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_stays_in_the_table_and_says_why(desk: Desk, name: str) -> None:
    encoded, error = BAD[name]
    tiny_photos.place(desk.photos, f"cat/{name}", encoded)
    outputs, path = desk.run()
    row = rows_of(path)[f"cat/{name}"]
    assert row["bytes"] == encoded
    assert (row["error"] or "").startswith(error or "")
    assert (row["error"] is None) == (error is None) == (row["mode"] is not None)
    assert outputs.facts.unreadable == (error is not None)
    assert outputs.facts.rows == 21


def test_a_manifest_file_works_as_data(desk: Desk) -> None:
    lines = [f"cat/{at:03d}.jpg,cat,{SPLITS[at % 3]}" for at in range(10)]
    lines += [f"dog/{at:03d}.jpg,dog,{SPLITS[at % 3]}" for at in range(10)]
    table = desk.photos / "list.csv"
    table.write_text("path,label,split\n" + "\n".join(lines))
    set_local(desk.root, "data", table)
    rows = rows_of(desk.run()[1])
    assert rows["dog/004.jpg"]["split"] == "validation"


def missing(desk: Desk) -> None:
    desk.photos.rename(desk.root / "gone")


def empty_class(desk: Desk) -> None:
    (desk.photos / "fox").mkdir()


def one_class(desk: Desk) -> None:
    (desk.photos / "dog").rename(desk.root / "dog")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            missing,
            "there is no data folder {photos}; it holds one folder a class. Fix: name it with "
            "`fettle run --data FOLDER` or as ingest.options.path in params.yaml.",
        ),
        (
            empty_class,
            "1 of 3 classes in {photos} have no files: got 'fox'; every class folder holds images "
            "of that class. Fix: add images or delete the folder.",
        ),
        (
            one_class,
            "{photos} has one class: got 'cat' (10 files); a classifier needs at least two. Fix: "
            "add a folder for each other class.",
        ),
    ],
)
def test_unusable_data_is_refused_with_the_next_step(
    desk: Desk, spoil: Callable[[Desk], None], text: str
) -> None:
    spoil(desk)
    with pytest.raises(DataError) as caught:
        desk.run_stale(settings(FOLDER))
    assert str(caught.value) == text.format(photos=desk.photos)


def test_data_that_changed_since_it_was_named_is_refused(desk: Desk) -> None:
    params = settings(FOLDER)
    desk.refresh()
    before = json.loads((desk.root / "inputs" / "source.json").read_text())["digest"]
    tiny_photos.place(desk.photos, "cat/new.jpg", tiny_photos.jpeg(500))
    now = str(image_folder.fingerprint(image_folder.Params(), desk.photos)["digest"])
    with pytest.raises(ProjectError) as caught:
        desk.run_stale(params)
    assert str(caught.value) == (
        f"inputs/source.json is stale: got image_folder {before[:12]}; the data is now "
        f"image_folder {now[:12]}, and the cache is keyed by this file. Fix: use `fettle run`, "
        "which refreshes it (a plain `dvc repro` cannot)."
    )


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (None, "no such file"),
        ("{half", "a file that is not JSON as fettle writes it"),
        ("[]", "a file that is not JSON as fettle writes it"),
        ('{"source": "digits", "digest": "abc"}', "digits abc"),
    ],
)
def test_a_source_file_that_names_nothing_or_something_else_is_refused(
    tmp_path: Path, text: str | None, got: str
) -> None:
    path = tmp_path / "source.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ProjectError) as caught:
        ingest.refuse_stale(path, "image_folder", "0123456789abcdef")
    assert str(caught.value) == (
        f"inputs/source.json is stale: got {got}; the data is now image_folder 0123456789ab, and "
        "the cache is keyed by this file. Fix: use `fettle run`, which refreshes it (a plain `dvc "
        "repro` cannot)."
    )


def test_a_source_that_repeats_a_row_id_is_our_fault(tmp_path: Path) -> None:
    item = Item("a", "cat", None, None, tiny_photos.png(1))
    spool = ScratchFile(tmp_path, what="images")
    found = ingest.inspect_images([item, item], 2, MemoryRecorder(), spool)
    with pytest.raises(OurFault) as caught:
        ingest.refuse_double_rows(found, "mine")
    assert str(caught.value) == "the source mine gave two images the same row id."


def test_progress_never_says_done_before_the_end(tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    items = (Item(f"r{at}", "cat", None, None, b"") for at in range(3))
    ingest.inspect_images(items, 0, recorder, ScratchFile(tmp_path, what="images"))
    assert recorder.progresses == [(0.0, "0 images read")]


def test_the_digits_go_through_whole(tmp_path: Path) -> None:
    from fettle.data.sources import digits

    doc = {"source": "digits", **digits.fingerprint(digits.Params(), None)}
    manifest.write_json(tmp_path / "inputs" / "source.json", doc)
    out = tmp_path / "out"
    out.mkdir()
    inputs = Inputs({}, tmp_path, tmp_path / "scratch")
    outputs = ingest.run(settings(), inputs, out, MemoryRecorder())
    assert outputs.facts.rows == 1797
    counts = outputs.facts.classes["0"]
    assert counts == {"train": 71, "validation": 18, "test": 89}


@pytest.mark.parametrize(
    ("names", "test"),
    [(("train", "val", "test"), "own"), (("train", "val"), "drawn from train")],
)
def test_the_folders_own_splits_are_kept_and_told(
    desk: Desk, names: tuple[str, ...], test: str
) -> None:
    desk.photos.rename(desk.root / "old")
    for index, name in enumerate(names):
        tiny_photos.fill(desk.photos / name, [f"{index}cat", f"{index}dog"], 5)
        for label in ("cat", "dog"):
            (desk.photos / name / f"{index}{label}").rename(desk.photos / name / label)
    recorder = MemoryRecorder()
    desk.refresh()
    (desk.root / "out").mkdir()
    inputs = Inputs({}, desk.root, desk.root / "scratch")
    outputs = ingest.run(settings(FOLDER), inputs, desk.root / "out", recorder)
    assert outputs.facts.splits == {"train": "own", "validation": "own", "test": test}
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for row, fields in rows_of(desk.root / "out" / image_table.IMAGES).items():
        homes[row.split("/")[0]].add(fields["split"])
    assert homes["val"] == {"validation"}
    assert homes["train"] == ({"train"} if test == "own" else {"train", "test"})
    told = recorder.notes["warning"]
    assert told.startswith("the data's own splits are kept, not ingest.split: train ")
    assert told.endswith(f"({test})")


def test_splits_that_nobody_named_are_drawn(desk: Desk) -> None:
    assert desk.run()[0].facts.splits == dict.fromkeys(SPLITS, "drawn")
