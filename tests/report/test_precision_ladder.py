from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fettle.report import html_page, number_format, precision_ladder, report_facts, target_rows
from fettle.report.report_values import TargetFacts


@pytest.fixture(scope="module")
def targets(finished: Path) -> tuple[TargetFacts, ...]:
    return report_facts.collect(finished).targets


def named(targets: tuple[TargetFacts, ...], name: str) -> TargetFacts:
    return next(target for target in targets if target.name == name)


def test_each_step_says_what_it_bought_and_cost_against_the_one_above(
    targets: tuple[TargetFacts, ...],
) -> None:
    rows = [row for row in precision_ladder.rungs(targets) if "_ort_" in row["target"]]
    assert [row["precision"] for row in rows] == ["fp32", "int8"]
    assert (rows[0]["bought"], rows[0]["cost"], rows[0]["churn"]) == (
        number_format.DASH,
        number_format.DASH,
        "0 %",
    )
    assert rows[1]["bought"] == "2.00x smaller, 2.00x as fast"
    assert (rows[1]["cost"], rows[1]["churn"], rows[1]["verdict"]) == ("-0.2", "0.6 %", "ship")


def test_the_order_is_of_precision_and_not_of_params_yaml(targets: tuple[TargetFacts, ...]) -> None:
    plain, int8 = named(targets, "x86_ort_fp32"), named(targets, "x86_ort_int8")
    w4 = replace(plain, name="x86_ort_w4", precision="w4", size_bytes=30_000)
    w8 = replace(plain, name="x86_ort_w8", precision="w8", size_bytes=45_000)
    rows = precision_ladder.rungs((int8, w4, plain, w8))
    assert [row["precision"] for row in rows] == ["fp32", "w8", "w4", "int8"]
    assert rows[2]["bought"] == "1.50x smaller, 1.00x as fast"
    assert rows[3]["bought"].startswith("1.00x smaller"), "int8 is held against w8, at its 45 kB"


def test_a_file_that_grew_says_so(targets: tuple[TargetFacts, ...]) -> None:
    plain, int8 = named(targets, "x86_ort_fp32"), named(targets, "x86_ort_int8")
    rows = precision_ladder.rungs((plain, replace(int8, size_bytes=180_000)))
    assert rows[1]["bought"].startswith("2.00x larger, ")


def test_what_was_not_measured_is_no_step_and_one_step_is_no_ladder(
    targets: tuple[TargetFacts, ...],
) -> None:
    plain, int8 = named(targets, "x86_ort_fp32"), named(targets, "x86_ort_int8")
    assert precision_ladder.rungs((plain, replace(int8, evidence="not measured"))) == []


def test_the_page_shows_the_ladder(finished: Path, tmp_path: Path) -> None:
    html_page.render(report_facts.collect(finished), tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    assert text.count("2.00x smaller, 2.00x as fast") == 1
    assert "<caption>Precision, step by step" in text


def test_a_target_with_int4_weights_names_the_layers_in_int8(
    targets: tuple[TargetFacts, ...],
) -> None:
    plain = named(targets, "x86_ort_fp32")
    some, none = (replace(plain, kept_int8=kept) for kept in (("stem", "head"), ()))
    assert target_rows.notes(some)[-1] == "weights kept in int8: stem, head"
    assert target_rows.notes(none)[-1] == "every layer's weights in int4"
