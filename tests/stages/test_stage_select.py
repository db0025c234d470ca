from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_project import TinyProject, settings

from fettle.errors import TargetError
from fettle.evaluation import accuracy_budget, passing_probability
from fettle.evaluation.accuracy_budget import PairedCounts
from fettle.measure import Measure
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import select

ORDER = ("x86_ort_fp32", "x86_ort_int8", "x86_openvino_fp32", "x86_openvino_int8")


def one(value: float, unit: str = "1", spread: float = 0.0) -> Measure:
    return Measure(value=value, unit=unit, n=60, low=value - spread, high=value + spread)


SEEN, TESTED = 200, 900


def answers(lost: int, gained: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Make two models' answers of three classes: only one of them is right on `lost + gained`."""
    labels = np.arange(SEEN) % 3
    right = np.eye(3, dtype=np.float32)[labels]
    baseline, candidate = right.copy(), right.copy()
    candidate[:lost] = np.roll(right[:lost], 1, axis=1)
    baseline[lost : lost + gained] = np.roll(right[lost : lost + gained], 1, axis=1)
    return {"baseline": baseline, "candidate": candidate, "labels": labels}


class Rows:
    """Seal evaluate's artefacts with the figures a test names."""

    def __init__(self, root: Path) -> None:
        self.project = TinyProject(root)
        self.tested = TESTED

    def ships(
        self,
        target: str,
        *,
        speedup: float,
        size: int,
        lost: int = 0,
        gained: int = 0,
        spread: float = 0.05,
    ) -> None:
        drop = (lost - gained) / SEEN
        measures = {
            "speedup": one(speedup, "x", spread),
            "latency_p50_ms": one(2 / speedup, "ms"),
            "size_bytes": one(size, "bytes"),
            "accuracy": one(0.99 - drop),
            "accuracy_drop": one(drop, spread=0.02),
            "worst_recall_drop": one(3 * drop, spread=0.02),
        }
        self._seal(target, "ship", "measured", "faster", size, measures)
        folder = self.project.root / "artifacts" / "evaluate" / target
        save_file(answers(lost, gained), folder / "answers.safetensors")

    def refused(self, target: str, reason: str) -> None:
        self._seal(target, "refused", "not measured", reason, None, {})

    def _seal(self, target: str, verdict: str, evidence: str, reason: str, *rest: Any) -> None:
        facts = {"target": target, "verdict": verdict, "evidence": evidence, "reason": reason}
        self.project.seal(
            f"evaluate@{target}", facts={**facts, "size_bytes": rest[0]}, measures=rest[1]
        )

    def choose(self, *overrides: str) -> tuple[Outputs, dict[str, Any]]:
        out = self.project.folder("select")
        there = [t for t in ORDER if (self.project.root / "artifacts" / "evaluate" / t).is_dir()]
        made = {"params_after": one(5000, "parameters"), "macs_after": one(90_000, "macs")}
        self.project.seal("compress", measures=made)
        classes = {name: {"test": self.tested // 3} for name in "abc"}
        self.project.seal("validate", facts={"classes": classes})
        inputs = self.project.inputs(
            "compress", "validate", *(f"evaluate@{target}" for target in there)
        )
        outputs = select.run(
            settings("compress.budget.drop_max=0.02", *overrides), inputs, out, MemoryRecorder()
        )
        return outputs, json.loads((out / "choice.json").read_text())


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def test_the_fastest_is_chosen(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000)
    rows.ships("x86_ort_int8", speedup=4.0, size=700)
    outputs, choice = rows.choose()
    assert choice["target"] == outputs.facts.target == "x86_ort_int8"
    assert choice["why"] == "the fastest of 2 that may ship: 4.00x the float model's speed"
    assert choice["goal_met"] is True


def test_the_smallest_is_chosen_when_size_is_the_objective(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=9.0, size=1000)
    rows.ships("x86_ort_int8", speedup=4.0, size=700)
    _, choice = rows.choose("compress.objective.minimise=size_bytes")
    assert choice["target"] == "x86_ort_int8"
    assert choice["why"] == "the smallest of 2 that may ship: 700 bytes"


def test_a_tie_in_speed_goes_to_the_smaller_file(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=4.1, size=1000, spread=0.2)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, spread=0.2)
    rows.ships("x86_openvino_int8", speedup=2.0, size=300, spread=0.2)
    _, choice = rows.choose()
    assert choice["target"] == "x86_ort_int8"
    assert choice["why"] == (
        "the smallest of the fastest of 3 that may ship: 4.00x the float model's speed, a tie with "
        "x86_ort_fp32's 4.10x, at 700 bytes"
    )


def test_a_target_outside_the_budget_is_passed_over(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=5)
    _, choice = rows.choose()
    assert choice["target"] == "x86_ort_fp32"
    inside = {row["target"]: row["inside_budget"] for row in choice["candidates"]}
    assert inside == {"x86_ort_fp32": True, "x86_ort_int8": False}


def test_a_drop_within_the_budget_that_will_hardly_hold_on_test_is_outside(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=3)  # 1.5 points of 2
    _, choice = rows.choose()
    of = {row["target"]: row for row in choice["candidates"]}
    assert of["x86_ort_int8"]["drop"]["value"] < 0.02
    assert of["x86_ort_int8"]["chance"] < choice["chance_min"] < of["x86_ort_fp32"]["chance"]
    assert of["x86_ort_int8"]["inside_budget"] is False


def test_the_choice_goes_by_the_chance_that_the_search_goes_by(rows: Rows) -> None:
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=3, gained=1)
    _, choice = rows.choose()
    asked = settings("compress.budget.drop_max=0.02").compress.budget
    pairs = PairedCounts(lost=3, gained=1, n=SEEN)
    (row,) = choice["candidates"]
    assert row["chance"] == accuracy_budget.predictive_probability(
        pairs, TESTED, drop_max=0.02, confidence=0.95
    )
    lossless = passing_probability.probability_for_drop(asked, 0.0, seen=SEEN, tested=TESTED)
    assert choice["chance_min"] == 0.85 * lossless


def test_a_test_set_that_decides_nothing_still_lets_a_lossless_target_in(rows: Rows) -> None:
    rows.tested = 120  # not even a lossless model passes on fewer than 133
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000, lost=1, gained=1)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=20)
    _, choice = rows.choose()
    inside = {row["target"]: row["inside_budget"] for row in choice["candidates"]}
    assert inside == {"x86_ort_fp32": True, "x86_ort_int8": False}


def test_the_budget_holds_the_metric_it_names(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=1)
    _, by_recall = rows.choose("compress.budget.metric=worst_recall")
    _, by_accuracy = rows.choose()
    assert (by_recall["target"], by_accuracy["target"]) == ("x86_ort_fp32", "x86_ort_int8")


def test_when_none_is_inside_the_likeliest_is_kept_and_said(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000, lost=6)
    rows.ships("x86_ort_int8", speedup=4.0, size=700, lost=10)
    outputs, choice = rows.choose()
    assert (choice["target"], outputs.facts.goal_met) == ("x86_ort_fp32", False)
    assert choice["why"] == (
        "no target is likely enough to keep the drop of accuracy within 0.02 on test: "
        "x86_ort_fp32 is with probability 0.08, below 0.73, after a drop of 0.0300 on validation"
    )


def test_a_refused_target_stays_in_the_table_with_its_reason(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000)
    rows.refused("x86_ort_int8", "it branches")
    _, choice = rows.choose()
    assert choice["why"] == "the fastest that may ship: 3.00x the float model's speed"
    row = next(one for one in choice["candidates"] if one["target"] == "x86_ort_int8")
    assert (row["verdict"], row["reason"], row["drop"]) == ("refused", "it branches", None)


def test_when_all_are_refused_every_reason_is_said(rows: Rows) -> None:
    rows.refused("x86_ort_int8", "it branches on its data")
    rows.refused("x86_openvino_int8", "the package openvino is not installed")
    with pytest.raises(TargetError) as caught:
        rows.choose()
    assert str(caught.value) == (
        "no target may ship: got x86_ort_int8 is refused (it branches on its data); "
        "x86_openvino_int8 is refused (the package openvino is not installed); a file ships when "
        "it is sound, faster than the float model, and pays for itself. Fix: add x86_ort_fp32 to "
        "targets (params.yaml), or mend a cause."
    )


def test_when_the_plain_target_is_refused_too_it_is_not_advised(rows: Rows) -> None:
    rows.refused("x86_ort_fp32", "not shown to be faster: 0.98x the speed of the float model")
    rows.refused("x86_ort_int8", "it branches on its data")
    with pytest.raises(TargetError) as caught:
        rows.choose()
    assert str(caught.value) == (
        "no target may ship: got x86_ort_fp32 is refused (not shown to be faster: 0.98x the speed "
        "of the float model); x86_ort_int8 is refused (it branches on its data); a file ships when "
        "it is sound, faster than the float model, and pays for itself. Fix: mend a cause: where "
        "x86_ort_fp32 is too slow as well, only a smaller model is faster (params.yaml: "
        "compress.recipe)."
    )


def test_the_objectives_own_target_alone_counts(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000)
    rows.ships("x86_ort_int8", speedup=4.0, size=700)
    _, choice = rows.choose("compress.objective.target=x86_ort_fp32")
    assert choice["target"] == "x86_ort_fp32"


def test_an_objective_on_a_refused_target_names_the_others(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=1000)
    rows.refused("x86_ort_int8", "it branches on its data")
    with pytest.raises(TargetError) as caught:
        rows.choose("compress.objective.target=x86_ort_int8")
    assert str(caught.value) == (
        "the target that compress.objective.target names may not ship: got x86_ort_int8 is "
        "refused (it branches on its data); others that may: x86_ort_fp32. Fix: set "
        "compress.objective.target to one of them or to null, or mend the cause."
    )


def test_a_target_that_breaks_a_limit_is_not_chosen(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=900)
    rows.ships("x86_ort_int8", speedup=2.0, size=300)
    outputs, choice = rows.choose("compress.constraints={size_bytes_max: 500}")
    assert (outputs.facts.target, outputs.facts.goal_met) == ("x86_ort_int8", True)
    broken = {row["target"]: row["over"] for row in choice["candidates"]}
    assert broken == {
        "x86_ort_fp32": ["size_bytes is 900, above compress.constraints.size_bytes_max 500"],
        "x86_ort_int8": [],
    }
    assert choice["limits"] == {"size_bytes_max": 500}


def test_when_every_target_breaks_a_limit_the_goal_is_not_met_and_the_nearest_is_kept(
    rows: Rows,
) -> None:
    rows.ships("x86_ort_fp32", speedup=3.0, size=900)
    rows.ships("x86_ort_int8", speedup=2.0, size=300)
    outputs, _ = rows.choose("compress.constraints={params_max: 4000, latency_p50_ms_max: 0.8}")
    assert (outputs.facts.target, outputs.facts.goal_met) == ("x86_ort_fp32", False)
    assert outputs.facts.why == (
        "no target keeps every limit: of x86_ort_fp32 params is 5,000, above "
        "compress.constraints.params_max 4,000"
    )


def test_the_objective_macs_ships_the_fastest_form_of_the_one_model(rows: Rows) -> None:
    rows.ships("x86_ort_fp32", speedup=2.0, size=900)
    rows.ships("x86_ort_int8", speedup=3.0, size=300)
    outputs, _ = rows.choose("compress.objective.minimise=macs")
    assert outputs.facts.target == "x86_ort_int8"
