"""The validation page: self-contained, complete, and safe whatever a file is called."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import pytest
import tiny_photos
from PIL import Image
from tiny_frames import LIMITS

from fettle.data import validation_page as pages
from fettle.data.checks import Failing, Rule
from fettle.data.expectations import ExpectationResult
from fettle.data.validation_page import document, page, thumbnail, to_show
from fettle.data.validation_runner import CheckResult, Examination

EVIL = "cat/<script>alert(1)</script>.jpg"


def outcome(name: str, failing: Failing, bad: tuple[str, ...]) -> ExpectationResult:
    rule = Rule(
        name=name,
        says=f"the rule {name}",
        expectation="ExpectSomething",
        arguments={"column": "mode"},
        failing=failing,
        reason="why",
        fix="a next step",
    )
    return ExpectationResult(rule, not bad, "2.5", 0 if failing is Failing.WARN else 4, bad)


@pytest.fixture
def found() -> Examination:
    return Examination(
        outcomes=[
            outcome("mode", Failing.QUARANTINE, (EVIL,)),
            outcome("class_imbalance", Failing.WARN, ("cat",)),
            outcome("columns", Failing.REFUSE, ()),
        ],
        lines=[CheckResult(EVIL, "mode", "pixels of mode F")],
        kept=["a", "b", "c"],
        classes={
            "cat": {"train": 1, "validation": 1, "test": 0},
            "dog": {"train": 0, "validation": 0, "test": 1},
        },
        overview={"format": {"PNG": 4}, "mode": {"F": 1, "RGB": 3}, "size": {"10 x 10": 4}},
    )


def render(found: Examination, images: dict[str, bytes] | None = None) -> str:
    doc = document(found, LIMITS, 4)
    return page(doc, found.lines, images=images or {}, css="body { margin: 0 }")


def test_the_document_says_what_was_found(found: Examination) -> None:
    doc: dict[str, Any] = document(found, LIMITS, 4).to_object()
    assert (doc["rows"], doc["kept"], doc["quarantined"]) == (4, 3, 1)
    assert doc["by_rule"] == {"mode": 1}
    assert doc["limits"]["class_images_min"] == LIMITS.class_images_min
    assert [(c["name"], c["passed"], c["failing"], c["broken"]) for c in doc["checks"]] == [
        ("mode", False, "quarantine", 1),
        ("class_imbalance", False, "warn", 1),
        ("columns", True, "refuse", 0),
    ]


def test_the_page_needs_no_network(found: Examination) -> None:
    html = render(found, {EVIL: tiny_photos.floating(1)})
    loaded = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert [one for one in loaded if not one.startswith(("data:", "#"))] == []
    assert "@import" not in html


def test_the_page_shows_counts_rules_reasons_and_next_steps(found: Examination) -> None:
    html = render(found)
    for text in (
        "3 of 4 images go on, in 2 classes.",
        "the rule mode",
        "pixels of mode F",
        "To mend: a next step.",
        "1 of 3",
        "set aside",
        "warning",
    ):
        assert text in html


def test_a_name_with_markup_is_shown_as_text(found: Examination) -> None:
    html = render(found, {EVIL: tiny_photos.png(1)})
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_an_image_set_aside_is_shown_small(found: Examination) -> None:
    html = render(found, {EVIL: tiny_photos.png(1, size_px=300)})
    uri = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri[1]))) as image:
        assert max(image.size) == 96


def test_the_same_result_gives_the_same_page(found: Examination) -> None:
    images = {EVIL: tiny_photos.png(1)}
    assert render(found, images) == render(found, images)


def test_a_long_list_is_cut_and_says_so(
    found: Examination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "LINES_SHOWN", 5)
    lines = [CheckResult(f"row-{at:03d}", "mode", "why") for at in range(9)]
    html = page(document(found, LIMITS, 4), lines, images={}, css="")
    assert "row-004" in html
    assert "row-005" not in html
    assert "9" in html


@pytest.mark.parametrize(
    "encoded",
    [tiny_photos.png(1), tiny_photos.cmyk(1), tiny_photos.sixteen_bit(1), tiny_photos.floating(1)],
    ids=["png", "cmyk", "sixteen bits", "float"],
)
def test_every_kind_of_image_gets_a_thumbnail(encoded: bytes) -> None:
    uri = thumbnail(encoded)
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        low, high = image.convert("L").getextrema()
    assert isinstance(low, int)
    assert isinstance(high, int)
    assert high - low > 100


@pytest.mark.parametrize("encoded", [b"", b"text", tiny_photos.corrupt(1)])
def test_what_cannot_be_drawn_gets_none(encoded: bytes) -> None:
    assert thumbnail(encoded) is None


def test_the_first_few_rows_of_each_rule_are_shown() -> None:
    lines = [CheckResult(f"{rule}{at}", rule, "") for rule in "xy" for at in range(9)]
    assert to_show(lines) == [f"{rule}{at}" for rule in "xy" for at in range(6)]
