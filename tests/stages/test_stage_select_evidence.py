"""The faster file is preferred, unless the evidence against it is real."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_stage_select import SEEN, Rows

from fettle.evaluation.paired_evidence import PairedEvidence


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_a_faster_file_that_lost_two_images_is_taken_and_the_evidence_is_told(rows: Rows) -> None:
    rows.ships("x86_ort_int8", speedup=1.29, size=700, spread=0.01)
    rows.ships("x86_openvino_int8", speedup=1.96, size=700, lost=3, spread=0.02)
    outputs, choice = rows.choose()
    of = {row["target"]: row for row in choice["candidates"]}
    assert of["x86_openvino_int8"]["inside_budget"] is False
    assert choice["target"] == "x86_openvino_int8"
    assert choice["goal_met"] is outputs.facts.goal_met is True
    assert choice["why"] == (
        "the fastest that is not shown to be worse: 1.96x the float model's speed; of 200 "
        "validation images it loses 3 and gains 0 against x86_ort_int8, 1.29x (p = 0.12)"
    )


@pytest.mark.parametrize(
    ("faster", "reason"),
    [
        ({"speedup": 4.0, "lost": 4}, "its drop is the budget, and four of four lost is 1 in 16"),
        ({"speedup": 4.0, "lost": 5}, "five of five lost is 1 in 32"),
        ({"speedup": 3.05, "lost": 3}, "its lead lies within the intervals"),
    ],
)
def test_it_is_not_preferred_against_the_budget_or_for_no_lead(
    rows: Rows, faster: dict[str, float], reason: str
) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=600)
    rows.ships("x86_ort_int8", size=700, **faster)  # type: ignore[arg-type]  # numbers all
    _, choice = rows.choose()
    taken = "x86_ort_int8" if "1 in 16" in reason else "x86_ort_fp32"
    assert choice["target"] == taken, reason


def test_what_the_slower_file_lost_too_is_no_evidence_against_the_faster(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=600, lost=1)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=3)
    _, choice = rows.choose()
    assert "it loses 2 and gains 0 against x86_ort_fp32" in choice["why"]


def test_a_drop_beyond_the_budget_is_not_preferred_though_no_sign_test_speaks(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=600, lost=1)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=5)  # 2.5 points; 4 of 4: 1 in 16
    _, choice = rows.choose()
    assert choice["target"] == "x86_ort_fp32"
    assert choice["goal_met"] is True


def test_another_metric_and_another_aim_go_by_the_forecast_alone(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=600)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=3)
    assert rows.choose("compress.objective.minimise=size_bytes")[1]["target"] == "x86_ort_fp32"
    assert rows.choose("compress.budget.metric=macro_f1")[1]["target"] == "x86_ort_fp32"


def test_a_file_that_breaks_a_limit_is_not_preferred_for_its_speed(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=600)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=3)
    _, choice = rows.choose("compress.constraints.size_bytes_max=650")
    assert choice["target"] == "x86_ort_fp32"


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    [(2, 0, 0.25), (5, 0, 1 / 32), (0, 0, 1.0), (0, 9, 1.0), (9, 2, 67 / 2048), (1, 1, 0.75)],
)
def test_the_sign_test_is_exact(lost: int, gained: int, p_value: float) -> None:
    found = PairedEvidence(lost, gained, SEEN)
    assert found.p_value == p_value
    assert found.is_real(0.95) is (p_value <= 0.05)
