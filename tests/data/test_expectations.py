"""Every rule as Great Expectations computes it: which rows it finds, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_frames import LIMITS, frame, good, healthy, unreadable

from fettle import plugins
from fettle.data.checks import CheckLimits, Failing, Rule
from fettle.data.expectations import Validator
from fettle.data.validation_runner import Examination, examine
from fettle.errors import DataError, OurFault

Row = dict[str, Any]


def check(rows: list[Row], limits: CheckLimits = LIMITS, *, most: float = 1.0) -> Examination:
    return examine(frame(rows), limits, quarantine_max_fraction=most)


def refusal(rows: list[Row], limits: CheckLimits = LIMITS, *, most: float = 1.0) -> str:
    with pytest.raises(DataError) as caught:
        check(rows, limits, most=most)
    return str(caught.value)


def lines(found: Examination) -> list[tuple[str, str, str]]:
    return [(line.row, line.rule, line.reason) for line in found.lines]


BAD: dict[str, tuple[Row, str]] = {
    "unreadable": (unreadable("bad/unreadable", "cat", "no image but text"), "no image but text"),
    "mode": (
        good("bad/mode", "cat", "train", mode="F"),
        "pixels of mode F have no stated scale or no conversion to grey",
    ),
    "width": (
        good("bad/width", "cat", "train", width=7),
        "7 x 24 px: the width is outside 8 to 64",
    ),
    "height": (
        good("bad/height", "cat", "train", height=65),
        "32 x 65 px: the height is outside 8 to 64",
    ),
    "constant": (
        good("bad/constant", "cat", "train", low=0.5, high=0.5),
        "every pixel has the same brightness (50% of full scale)",
    ),
    "darkest": (
        good("bad/darkest", "cat", "train", low=-0.25),
        "the darkest pixel is at -25% of full scale",
    ),
    "brightest": (
        good("bad/brightest", "cat", "train", high=1.5),
        "the brightest pixel is at 150% of full scale",
    ),
    "label_text": (
        good("bad/label_text", "cat ", "train"),
        "stray space or control character in the label 'cat '",
    ),
    "duplicate": (
        good("bad/duplicate", "cat", "train", sha256=healthy()[2]["sha256"]),
        "the same bytes as validation row 'cat/02'",
    ),
}


@pytest.fixture(scope="module")
def spoilt() -> Examination:
    return check([*(row for row, _ in BAD.values()), *healthy()])


@pytest.mark.parametrize("rule", BAD)
def test_a_bad_image_is_set_aside_with_its_reason(rule: str, spoilt: Examination) -> None:
    assert (f"bad/{rule}", rule, BAD[rule][1]) in lines(spoilt)


def test_each_bad_image_breaks_one_rule_and_the_rest_goes_on(spoilt: Examination) -> None:
    assert spoilt.by_rule == dict.fromkeys(sorted(BAD), 1)
    assert spoilt.kept == [one["row"] for one in healthy()]
    assert list(spoilt.classes) == ["cat", "dog"]


def test_healthy_data_keeps_every_rule() -> None:
    found = check(healthy())
    assert found.lines == []
    assert all(outcome.passed for outcome in found.outcomes)
    rules = [r for name in plugins.names("checks") for r in load_rules(name)]
    assert sorted(o.rule.name for o in found.outcomes) == sorted(r.name for r in rules)
    assert found.classes["cat"] == {"train": 4, "validation": 2, "test": 2}


def load_rules(name: str) -> list[Rule]:
    found: list[Rule] = plugins.resolve("checks", name, where="checks").rules(LIMITS)
    return found


def test_a_newline_at_the_end_of_a_label_is_seen() -> None:
    found = check([good("bad", "cat\n", "train"), *healthy()])
    assert found.by_rule == {"label_text": 1}


def test_the_same_bytes_with_two_labels_are_all_set_aside() -> None:
    rows = healthy()
    rows[9]["sha256"] = rows[0]["sha256"]
    reason = "the same bytes are labelled 'cat', 'dog'"
    assert lines(check(rows)) == [
        ("cat/00", "label_conflict", reason),
        ("dog/01", "label_conflict", reason),
    ]


def test_an_unlabelled_image_within_the_limit_is_set_aside() -> None:
    rows = [good("bad", None, "train"), *healthy()]
    found = check(rows, replace(LIMITS, null_max_fraction=0.1))
    assert lines(found) == [("bad", "label_missing", "no label")]


def test_too_many_unlabelled_images_are_refused_by_name() -> None:
    assert refusal([good("bad", None, "train"), *healthy()]) == (
        "validation refuses the data: got 'bad': no label, where at most 0.00% of the images have "
        "no label (validate.null_max_fraction). Fix: label them or take them out, or raise "
        "validate.null_max_fraction in params.yaml."
    )


def test_a_label_that_is_not_asked_for_is_set_aside() -> None:
    found = check([good("bad", "cta", "train"), *healthy()], replace(LIMITS, labels=("cat", "dog")))
    assert lines(found) == [("bad", "label_known", "the label 'cta' is not in validate.labels")]
    assert list(found.classes) == ["cat", "dog"]


def test_a_label_asked_for_without_images_is_refused() -> None:
    assert refusal(healthy(), replace(LIMITS, labels=("cat", "dog", "fox"))).startswith(
        "validation refuses the data: got class 'fox' has 0, where every class has at least 3 "
        "usable images (validate.class_images_min); "
    )


def test_one_class_only_is_refused() -> None:
    assert refusal(healthy(classes=("cat",))) == (
        "validation refuses the data: got 1, where there are at least two classes. Fix: add images "
        "of another class."
    )


def test_one_class_left_after_quarantine_is_refused() -> None:
    rows = [*healthy(classes=("cat",)), good("cat/odd", "cat ", "train")]
    assert refusal(rows) == (
        "validation refuses the data: got 1, where at least two classes are left after "
        "quarantine. Fix: mend the labels of the images set aside, or add images of another "
        "class."
    )


def test_no_class_left_after_quarantine_is_refused() -> None:
    rows = [good("a", "cat ", "train"), good("b", " dog", "test")]
    assert "got 0, where at least two classes are left after quarantine" in refusal(rows)


def test_a_small_class_is_refused() -> None:
    assert refusal(healthy(), replace(LIMITS, class_images_min=9)) == (
        "validation refuses the data: got class 'cat' has 8, class 'dog' has 8, where every class "
        "has at least 9 usable images (validate.class_images_min). Fix: add images, drop the "
        "class, or lower validate.class_images_min in params.yaml."
    )


def test_a_class_that_misses_a_split_is_refused() -> None:
    rows = [row for row in healthy() if (row["label"], row["split"]) != ("dog", "validation")]
    assert refusal(rows) == (
        "validation refuses the data: got class 'dog' has none, where every class has usable "
        "images in validation. Fix: add images (or groups) of that class, or change ingest.split "
        "in params.yaml."
    )


def test_quarantine_counts_before_the_classes_are_judged() -> None:
    rows = healthy(4)
    rows[3] = unreadable("cat/03", "cat", "cut") | {"split": "test"}
    assert "class 'cat' has none, where every class has usable images in test" in refusal(rows)


def test_uneven_classes_are_a_warning_and_go_on() -> None:
    rows = healthy(4) + [good(f"more/{at}", "dog", "train") for at in range(6)]
    found = check(rows)
    broken = [(o.rule.name, o.rule.failing, o.observed) for o in found.outcomes if not o.passed]
    assert broken == [("class_imbalance", Failing.WARN, "2.5")]


def test_images_without_a_group_where_others_have_one_are_a_warning() -> None:
    rows = healthy()
    rows[0]["group"] = "anna"
    found = check(rows)
    broken = [(o.rule.name, o.observed) for o in found.outcomes if not o.passed]
    assert broken == [("group_null_share", "15 of 16 break it")]
    assert found.lines == []


def test_above_the_budget_the_data_is_refused() -> None:
    rows = [*(unreadable(f"bad/{at}", "cat", "cut short") for at in range(7)), *healthy()]
    first = ", ".join(f"'bad/{at}' (cut short)" for at in range(5))
    assert refusal(rows, most=0.3) == (
        "7 of 23 images would go to quarantine (30.4%): got unreadable 7; first: "
        f"{first} and 2 more; validate.quarantine_max_fraction allows 30.0%. Fix: mend or delete "
        "these files, or raise validate.quarantine_max_fraction in params.yaml."
    )


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda rows: rows[1].update(row="cat/00"),
            "'cat/00': the id is used more than once, 'cat/00': the id is used more than once, "
            "where every row has an id of its own",
        ),
        (
            lambda rows: rows[1].update(split="testing"),
            "'cat/01': unknown split 'testing', where every row is in train, validation, test",
        ),
        (
            lambda rows: rows[1].update(sha256="abc"),
            "'cat/01': no SHA-256: 'abc', where every content digest is a SHA-256",
        ),
    ],
)
def test_a_table_that_ingest_did_not_write_is_refused(
    spoil: Callable[[list[Row]], None], text: str
) -> None:
    rows = healthy()
    spoil(rows)
    assert refusal(rows) == (
        f"validation refuses the data: got {text}. Fix: delete artifacts/ingest and run "
        "`fettle run`."
    )


def test_an_empty_table_is_refused() -> None:
    assert refusal([]) == (
        "the data set has no images. Fix: name other data in params.yaml: ingest."
    )


def test_data_docs_are_the_same_bytes_twice_and_only_made_when_asked(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        examine(frame(healthy()), LIMITS, quarantine_max_fraction=0.0, docs=tmp_path / name)
        found = sorted((tmp_path / name).rglob("*.html"))
        pages.append({p.relative_to(tmp_path / name): p.read_bytes() for p in found})
    assert len(pages[0]) >= 3
    assert pages[0] == pages[1]


def test_an_expectation_that_cannot_be_computed_is_our_fault() -> None:
    rule = Rule(
        name="odd",
        says="a column that is not there",
        expectation="ExpectColumnValuesToNotBeNull",
        arguments={"column": "colour"},
        failing=Failing.WARN,
    )
    with pytest.raises(OurFault, match=r"the check 'odd' could not be computed: got .*colour"):
        Validator().run(frame(healthy()), [rule], name="images", key="row")


def test_the_overview_counts_what_could_be_read(spoilt: Examination) -> None:
    assert spoilt.overview["format"] == {"JPEG": 24}
    assert spoilt.overview["mode"] == {"RGB": 23, "F": 1}
    assert spoilt.overview["size"] == {"32 x 24": 22, "32 x 65": 1, "7 x 24": 1}


def test_a_class_lost_to_rows_set_aside_says_why_they_were() -> None:
    foxes = [{**row, "sha256": "0" * 64} for row in healthy(classes=("fox",))]
    assert "; images set aside before that: duplicate 7. Fix: " in refusal([*healthy(), *foxes])
