from __future__ import annotations

from pathlib import Path

import pytest

from fettle import params
from fettle.errors import ParamsError, TargetError
from fettle.evaluation import goal_feasibility
from fettle.hardware import energy_measurement
from fettle.recorder import MemoryRecorder

ROOT = Path(__file__).resolve().parents[2]


def check(*overrides: str, tested: int = 899) -> MemoryRecorder:
    recorder = MemoryRecorder()
    settings = params.load(ROOT / "params.yaml", overrides)
    goal_feasibility.check(
        settings, classes=10, tested=tested, least_class=tested // 10, recorder=recorder
    )
    return recorder


@pytest.mark.parametrize(
    ("limit", "unit"),
    [
        ("size_bytes_max", "bytes"),
        ("params_max", "parameters"),
        ("macs_max", "multiply-accumulates"),
    ],
)
def test_a_limit_below_the_last_layer_alone_is_refused_before_training(
    limit: str, unit: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        check(f"compress.constraints={{{limit}: 79}}")
    assert str(caught.value) == (
        f"compress.constraints.{limit}: no model can be that small: got 79; its last layer alone, "
        f"8 channels to 10 classes, has 80 {unit}. Fix: raise compress.constraints.{limit}; "
        "nothing was trained."
    )
    assert check(f"compress.constraints={{{limit}: 80}}").notes == {}


def test_an_undecidable_budget_is_a_warning_and_no_refusal() -> None:
    assert check().notes == {}
    noted = check("compress.budget.drop_max=0.005").notes["warning"]
    assert noted.startswith("compress.budget is below the noise of the test set: with n = 899")


def test_a_class_too_small_for_a_worst_recall_is_said_with_the_least_size_that_decides() -> None:
    asked = ("compress.budget.metric=worst_recall", "compress.budget.drop_max=0.05")
    assert check(*asked, tested=1270).notes == {}
    assert check(*asked, tested=1260).notes["warning"] == (
        "compress.budget of worst_recall is judged class by class (99.50% each, so that all 10 "
        "hold at once): with 126 test images of the smallest class not even a lossless model is "
        "shown to drop at most 0.05; it takes 127 of each class. Raise ingest.split.test, add "
        "data, or raise compress.budget.drop_max"
    )
    nothing = check(asked[0], "compress.budget.drop_max=0").notes["warning"]
    assert "it takes a budget above 0." in nothing


@pytest.mark.skipif(
    bool(energy_measurement.counters()), reason="this machine has an energy counter"
)
def test_energy_as_the_objective_is_refused_where_nothing_counts_it() -> None:
    with pytest.raises(TargetError, match="energy cannot be measured here"):
        check("compress.objective.minimise=energy_j")
