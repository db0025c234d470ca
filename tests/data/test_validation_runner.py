"""What follows from outcomes: rows set aside, classes counted, duplicates ranked, without GX."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_frames import frame, good, healthy, unreadable

from fettle.data import image_table
from fettle.data.checks import Failing, Rule, duplicates, nulls
from fettle.data.expectations import ExpectationResult
from fettle.data.image_table import SPLITS
from fettle.data.validation_runner import (
    CheckResult,
    class_frame,
    read_frame,
    refuse_above,
    set_aside,
)
from fettle.errors import DataError


def outcome(
    name: str, bad: tuple[str, ...], failing: Failing = Failing.QUARANTINE
) -> ExpectationResult:
    rule = Rule(
        name=name,
        says="a rule",
        expectation="",
        arguments={},
        failing=failing,
        reason=f"{name} of {{label}}",
    )
    return ExpectationResult(rule, not bad, "", 4, bad)


def test_rows_are_set_aside_in_the_order_of_the_table_then_of_the_rules() -> None:
    found = set_aside(
        frame(healthy(2)),
        [outcome("z", ("dog/00", "cat/01")), outcome("a", ("cat/01",))],
    )
    assert found == [
        CheckResult("cat/01", "a", "a of cat"),
        CheckResult("cat/01", "z", "z of cat"),
        CheckResult("dog/00", "z", "z of dog"),
    ]


def test_a_warning_sets_nothing_aside() -> None:
    assert set_aside(frame(healthy(2)), [outcome("w", ("cat/00",), Failing.WARN)]) == []


def test_a_label_with_braces_is_printed_as_it_is() -> None:
    rows = [good("r", "{row}", "train")]
    assert set_aside(frame(rows), [outcome("x", ("r",))]) == [CheckResult("r", "x", "x of {row}")]


def test_a_row_that_breaks_two_rules_counts_once_for_the_budget() -> None:
    lines = [CheckResult("a", "x", "r"), CheckResult("a", "y", "r"), CheckResult("b", "x", "r")]
    refuse_above(0.2, lines, 10)
    with pytest.raises(DataError, match=r"^2 of 10 images would go to quarantine \(20\.0%\)"):
        refuse_above(0.19, lines, 10)


def test_classes_are_counted_without_what_is_set_aside() -> None:
    lines = [CheckResult("cat/00", "unreadable", ""), CheckResult("dog/03", "duplicate", "")]
    found = class_frame(frame(healthy(4)), lines, None).set_index("label")
    assert found.loc["cat"].to_dict() == {
        **{"train": 1, "validation": 1, "test": 1},
        **{"images": 3, "times_smallest": 1.0},
    }
    assert found.loc["dog", "test"] == 0


def test_a_class_whose_images_are_all_set_aside_stays_with_none() -> None:
    lines = [CheckResult(f"cat/{at:02d}", "unreadable", "") for at in range(4)]
    found = class_frame(frame(healthy(4)), lines, None)
    assert dict(zip(found["label"], found["images"], strict=True)) == {"cat": 0, "dog": 4}


def test_a_class_that_exists_only_by_a_bad_label_is_none() -> None:
    rows = [*healthy(4), good("x", "cat ", "train")]
    found = class_frame(frame(rows), [CheckResult("x", "label_text", "")], None)
    assert list(found["label"]) == ["cat", "dog"]


def test_the_copy_that_is_kept_is_in_test_then_in_validation() -> None:
    rows = [good(f"r{index}", "cat", split, sha256="same") for index, split in enumerate(SPLITS)]
    found = duplicates.derive(frame(rows))["copy_of"]
    assert found[:2].tolist() == ["test row 'r2'"] * 2
    assert found.isna().tolist() == [False, False, True]


def test_files_that_cannot_be_decoded_are_no_duplicates() -> None:
    rows = [unreadable(f"r{at}", "cat", "an empty file") | {"sha256": "same"} for at in range(3)]
    found = duplicates.derive(frame(rows))
    assert found["copy_of"].isna().all()
    assert found["conflict"].isna().all()


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(SPLITS), st.sampled_from("xyz")),
        min_size=1,
        max_size=20,
    ),
    st.permutations(range(20)),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=80)
def test_of_equal_files_exactly_one_is_kept_and_none_where_labels_disagree(
    drawn: list[tuple[str, str, str]], order: list[int]
) -> None:
    rows = [good(f"r{index}", a, s, sha256=digest) for index, (a, s, digest) in enumerate(drawn)]
    table = frame(rows)
    found = duplicates.derive(table)
    for digest, copies in table.groupby("sha256"):
        kept = copies[
            found["copy_of"][copies.index].isna() & found["conflict"][copies.index].isna()
        ]
        assert len(kept) == (1 if copies["label"].nunique() == 1 else 0), digest
        best = max(SPLITS.index(split) for split in copies["split"])
        assert all(SPLITS.index(split) == best for split in kept["split"])
    shuffled = table.iloc[[at for at in order if at < len(rows)]]
    again = duplicates.derive(shuffled)
    assert again["copy_of"].sort_index().equals(found["copy_of"])


def test_a_group_gap_shows_only_where_groups_are_in_use() -> None:
    rows = healthy(2)
    assert nulls.derive(frame(rows))["group_gap"].isna().all()
    rows[0]["group"] = "anna"
    assert nulls.derive(frame(rows))["group_gap"].isna().tolist() == [True, False, False, False]


def test_a_table_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.parquet"
    frame(healthy()).drop(columns=["sha256"]).to_parquet(path)
    with pytest.raises(DataError) as caught:
        read_frame(path)
    assert str(caught.value) == (
        "images.parquet has no column sha256, bytes; ingest writes them all. Fix: delete "
        "artifacts/ingest and run `fettle run`."
    )


def test_the_images_themselves_are_not_read(tmp_path: Path) -> None:
    import pyarrow as pa

    rows = [{**row, "bytes": b"image"} for row in healthy(2)]
    table = pa.Table.from_pylist(rows, schema=image_table.SCHEMA)
    image_table.write(tmp_path / "images.parquet", image_table.SCHEMA, [table])
    found = read_frame(tmp_path / "images.parquet")
    assert "bytes" not in found.columns
    assert len(found) == 4
