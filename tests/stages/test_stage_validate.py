"""Validation of real files: the bad ones set aside with their reason, the rest handed on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_photos
from tiny_project import settings

from fettle import manifest
from fettle.data import image_table
from fettle.data.sources import image_folder
from fettle.errors import DataError
from fettle.evaluation.accuracy_budget import least_decidable_drop
from fettle.params import Params
from fettle.params_scope import decided_in, settle
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs, Outputs
from stages import ingest, validate

COUNT = 24  # photos a class: params.yaml asks for 20
ROOM = "validate.quarantine_max_fraction=0.2"


@dataclass(frozen=True)
class Done:
    """A finished validation: what it returned and what it wrote."""

    outputs: Outputs
    out: Path
    ingest: Path
    recorder: MemoryRecorder

    def aside(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for line in pq.read_table(self.out / image_table.QUARANTINE).to_pylist():
            found.setdefault(line["row"], []).append((line["rule"], line["reason"]))
        return found

    def kept(self) -> list[str]:
        rows: list[str] = pq.read_table(self.out / image_table.ROWS)["row"].to_pylist()
        return rows

    def document(self) -> dict[str, Any]:
        doc: dict[str, Any] = json.loads((self.out / "validation.json").read_text())
        return doc


class Desk:
    """A project in a folder with photos; ingest is run for real."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = tiny_photos.fill(root / "photos", ["cat", "dog"], COUNT)

    def ingest(self, params: Params) -> None:
        source = image_folder.fingerprint(image_folder.Params(), self.data)
        manifest.write_json(
            self.root / "inputs" / "source.json", {"source": "image_folder", **source}
        )
        out = self.root / "ingest"
        out.mkdir(exist_ok=True)
        ingest.run(params, Inputs({}, self.root, self.root / "scratch"), out, MemoryRecorder())

    def run(self, *overrides: str, name: str = "out") -> Done:
        options = f"ingest.options={{path: {json.dumps(str(self.data))}}}"
        params = settings("ingest.source=image_folder", options, *overrides)
        self.ingest(params)
        out, recorder = self.root / name, MemoryRecorder()
        out.mkdir()
        inputs = Inputs({"ingest": self.root / "ingest"}, self.root, self.root / "scratch")
        outputs = validate.run(params, inputs, out, recorder)
        return Done(outputs, out, self.root / "ingest", recorder)


@pytest.fixture(autouse=True, scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("FETTLE_ROOT", raising=False)
        yield


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Validate photos with one of each bad kind, and an equal pair in train and test."""
    desk = Desk(tmp_path_factory.mktemp("project"))
    place = tiny_photos.place
    place(desk.data, "cat/bad-corrupt.jpg", tiny_photos.corrupt(1))
    place(desk.data, "cat/bad-text.jpg", b"<html>404</html>\n")
    place(desk.data, "cat/bad-empty.jpg", b"")
    place(desk.data, "cat/odd-cmyk.jpg", tiny_photos.cmyk(2))
    place(desk.data, "cat/odd-sixteen.png", tiny_photos.sixteen_bit(3))
    place(desk.data, "cat/bad-float.tif", tiny_photos.floating(4))
    place(desk.data, "cat/bad-small.png", tiny_photos.png(5, size_px=4))
    for label in ("cat", "dog"):
        place(desk.data, f"{label}/two-labels.png", tiny_photos.png(6))
    lines = ["path,label,split"]
    for path in sorted(desk.data.rglob("*.*")):
        split = ("train", "validation", "test", "test")[len(lines) % 4]
        lines.append(f"{path.relative_to(desk.data)},{path.parent.name},{split}")
    for split in ("train", "test"):
        place(desk.data, f"dog/equal-{split}.png", tiny_photos.png(7))
        lines.append(f"dog/equal-{split}.png,dog,{split}")
    table = desk.data / "list.csv"
    table.write_text("\n".join(lines) + "\n")
    desk.data = table
    return desk.run(ROOM)


ASIDE = {
    "cat/bad-text.jpg": ("unreadable", "no image but text"),
    "cat/bad-empty.jpg": ("unreadable", "an empty file (0 bytes)"),
    "cat/bad-float.tif": (
        "mode",
        "pixels of mode F have no stated scale or no conversion to grey",
    ),
    "cat/two-labels.png": ("label_conflict", "the same bytes are labelled 'cat', 'dog'"),
    "dog/two-labels.png": ("label_conflict", "the same bytes are labelled 'cat', 'dog'"),
    "dog/equal-train.png": ("duplicate", "the same bytes as test row 'dog/equal-test.png'"),
}


@pytest.mark.parametrize("row", ASIDE)
def test_a_bad_image_is_set_aside_with_one_rule_and_one_reason(done: Done, row: str) -> None:
    assert done.aside()[row] == [ASIDE[row]]


def test_a_corrupt_image_is_set_aside_with_pillow_s_reason(done: Done) -> None:
    ((rule, reason),) = done.aside()["cat/bad-corrupt.jpg"]
    assert rule == "unreadable"
    assert reason.startswith("cannot be decoded: image file is truncated")


def test_an_image_that_breaks_two_rules_has_two_lines(done: Done) -> None:
    assert done.aside()["cat/bad-small.png"] == [
        ("height", "4 x 4 px: the height is outside 8 to 8192"),
        ("width", "4 x 4 px: the width is outside 8 to 8192"),
    ]


def test_cmyk_and_sixteen_bit_images_go_on(done: Done) -> None:
    assert {"cat/odd-cmyk.jpg", "cat/odd-sixteen.png"} <= set(done.kept())


def test_of_two_equal_images_the_one_in_the_test_set_is_kept(done: Done) -> None:
    assert "dog/equal-test.png" in done.kept()


def test_nothing_is_lost(done: Done) -> None:
    rows = pq.read_table(done.ingest / image_table.IMAGES, columns=["row"])["row"].to_pylist()
    assert sorted([*done.kept(), *done.aside()]) == sorted(rows)
    assert done.kept() == [row for row in rows if row not in done.aside()]


def test_the_facts_and_measures_count_the_same(done: Done) -> None:
    facts, measures = done.outputs.facts, done.outputs.measures
    assert (facts.passed, facts.rows, facts.quarantined) == (True, 59, 8)
    assert facts.by_rule == {
        **{"duplicate": 1, "height": 1, "label_conflict": 2, "mode": 1},
        **{"unreadable": 3, "width": 1},
    }
    assert measures["quarantined_fraction"].value == pytest.approx(8 / 59)
    assert measures["unlabelled_fraction"].value == 0
    assert measures["class_imbalance"].value == pytest.approx(26 / 25)
    counted = sum(n for splits in facts.classes.values() for n in splits.values())
    assert counted == 59 - 8 == len(done.kept())
    broken = [c.name for c in facts.checks if not c.passed]
    assert sorted(broken) == sorted(facts.by_rule)


def test_what_goes_on_can_be_read_by_every_later_stage(done: Done) -> None:
    from fettle.preprocessing import Preprocess

    preprocess = Preprocess(size_px=8, channels=3, mean=0.5, std=0.5)
    for split in image_table.SPLITS:
        rows = image_table.read_split(done.ingest, done.out, split)
        assert rows.classes == ["cat", "dog"]
        assert preprocess.batch(rows.encoded).shape == (len(rows.ids), 3, 8, 8)


def test_the_page_is_self_contained_and_shows_what_was_set_aside(done: Done) -> None:
    html = (done.out / "validation.html").read_text()
    assert [done.out / "validation.html"] == done.recorder.files
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", html)
    assert [one for one in loaded if not one.startswith(("data:", "#"))] == []
    assert "51 of 59 images go on" in html
    assert "the same bytes as test row" in html
    assert html.count("data:image/png;base64,") == 6  # the three undecodable have none, one has two


def test_it_writes_the_four_files_and_no_clock_or_path(done: Done) -> None:
    assert sorted(p.name for p in done.out.iterdir()) == [
        *("quarantine.parquet", "rows.parquet"),
        *("validation.html", "validation.json"),
    ]
    for path in done.out.iterdir():
        assert str(done.out.parent).encode() not in path.read_bytes()
    assert done.document()["kept"] == 51


def test_the_same_images_give_the_same_bytes(desk: Desk) -> None:
    first, second = desk.run(name="one").out, desk.run(name="two").out
    assert manifest.tree_digest(first) == manifest.tree_digest(second)
    assert (first / image_table.QUARANTINE).read_bytes() == (
        second / image_table.QUARANTINE
    ).read_bytes()


def test_above_the_budget_the_stage_refuses_and_names_the_files(desk: Desk) -> None:
    tiny_photos.place(desk.data, "cat/empty.jpg", b"")
    tiny_photos.place(desk.data, "dog/text.jpg", b"not found")
    with pytest.raises(DataError) as caught:
        desk.run()
    text = str(caught.value)
    assert text.startswith("2 of 50 images would go to quarantine (4.0%): got unreadable 2; first:")
    assert "'cat/empty.jpg' (an empty file (0 bytes))" in text
    assert "'dog/text.jpg' (no image but text)" in text
    assert text.endswith(
        "; validate.quarantine_max_fraction allows 2.0%. Fix: mend or delete these files, or raise "
        "validate.quarantine_max_fraction in params.yaml."
    )


def test_an_image_beside_the_class_folders_is_refused_by_name(desk: Desk) -> None:
    tiny_photos.place(desk.data, "stray.jpg", tiny_photos.jpeg(999))
    with pytest.raises(DataError) as caught:
        desk.run()
    assert str(caught.value) == (
        "validation refuses the data: got 'stray.jpg': no label, where at most 0.00% of the images "
        "have no label (validate.null_max_fraction). Fix: label them or take them out, or raise "
        "validate.null_max_fraction in params.yaml."
    )


def test_a_class_that_shrinks_below_its_minimum_is_refused(desk: Desk) -> None:
    with pytest.raises(DataError) as caught:
        desk.run("validate.class_images_min=25")
    assert str(caught.value) == (
        "validation refuses the data: got class 'cat' has 24, class 'dog' has 24, where every "
        "class has at least 25 usable images (validate.class_images_min). Fix: add images, drop "
        "the class, or lower validate.class_images_min in params.yaml."
    )


def test_a_budget_that_the_test_images_cannot_decide_is_said_and_changes_no_byte(
    desk: Desk,
) -> None:
    small = desk.run("compress.budget.drop_max=0.01", name="small")
    n = sum(one["test"] for one in small.outputs.facts.classes.values())
    said = small.recorder.notes["warning"]
    assert said.startswith(
        f"compress.budget is below the noise of the test set: with n = {n} even a lossless model"
    )
    assert "0.8 needs about 1,062 test images" in said
    large = desk.run("compress.budget.drop_max=1", name="large")
    assert "warning" not in large.recorder.notes
    assert large.outputs == small.outputs
    assert manifest.tree_digest(large.out) == manifest.tree_digest(small.out)


def test_an_auto_bound_is_decided_by_the_test_images_and_handed_on_to_later_stages(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path)
    done = desk.run("compress.budget.drop_max=auto")
    tested = sum(splits["test"] for splits in done.outputs.facts.classes.values())
    least = least_decidable_drop(tested, confidence=0.95)
    assert done.recorder.notes["decision"].startswith(f"compress.budget.drop_max is {least:g}: ")
    assert "warning" not in done.recorder.notes
    handed = decided_in(done.outputs.facts.to_json())
    later = settle(settings("compress.budget.drop_max=auto"), handed).compress.budget
    assert (later.drop_share, later.by_images) == (least, tested)
    own = desk.run("compress.budget.drop_max=0.3", name="own").outputs.facts
    assert "decided" not in own.to_object()
