from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sample_facts
import tiny_onnx
from tiny_project import CLASSES, COUNTS, TinyProject, pixels, settings

from fettle import manifest
from fettle.evaluation import accuracy_budget, accuracy_statistics
from fettle.hardware.runtimes import ort
from fettle.measure import Measure
from fettle.params_schema import Budget, Limit
from fettle.preprocessing import Preprocess
from fettle.recorder import MemoryRecorder
from fettle.release import release_gate
from fettle.stage_contract import Outputs
from stages import export, verdict

TARGETS = ("x86_ort_fp32", "x86_ort_int8")
READS = ("ingest", "validate", "finetune", *(f"export@{t}" for t in TARGETS), "select")


class Judged:
    """A tiny project, exported for two targets; `chosen` is what select took."""

    def __init__(self, root: Path, chosen: str = "x86_ort_int8", noise: float = 0.35) -> None:
        self.project = TinyProject(root, noise=noise)
        for target in TARGETS:
            out = self.project.folder(f"export@{target}")
            inputs = self.project.inputs("ingest", "validate", "compress", target=target)
            made = export.run(settings(), inputs, out, MemoryRecorder())
            self.project.seal(f"export@{target}", facts=made.facts)
        speedup = Measure(value=2.5, unit="x", n=20, low=2.0, high=3.0)
        rows = [{"target": target, "speedup": speedup.to_dict()} for target in TARGETS]
        sample_facts.write_choice(self.project.folder("select"), chosen, *rows)
        self.project.seal("select")
        self.out = self.project.folder("verdict")

    def run(self, *overrides: str) -> Outputs:
        inputs = self.project.inputs(*READS)
        return verdict.run(settings(*overrides), inputs, self.out, MemoryRecorder())

    def read(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())

    def test_logits(self, model: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
        given = pixels(COUNTS["test"], seed=2, noise=0.35)
        normalise = Preprocess(size_px=8, channels=1, mean=0.5, std=0.5).normalise
        return ort.open(model, threads=1).run(normalise(given))


@pytest.fixture
def judged(tmp_path: Path) -> Judged:
    return Judged(tmp_path)


def test_the_shipped_file_and_the_float_model_are_scored_on_test(judged: Judged) -> None:
    outputs = judged.run()
    labels = tiny_onnx.labels(COUNTS["test"])
    chosen = judged.test_logits(judged.project.folder("export@x86_ort_int8") / "model.onnx")
    floats = judged.test_logits(judged.project.folder("finetune") / "model.onnx")
    assert outputs.facts.split == "test"
    assert outputs.facts.n == outputs.measures["accuracy"].n == COUNTS["test"]
    for name in accuracy_statistics.METRICS:
        assert outputs.measures[name] == accuracy_statistics.summary(chosen, labels)[name]
        assert (
            outputs.measures[f"float_{name}"] == accuracy_statistics.summary(floats, labels)[name]
        )
        assert f"{name}_drop" in outputs.measures
    assert outputs.measures["recall.left"].n == COUNTS["test"] // 3
    assert outputs.measures["float_recall.right"].value > 0.9


def test_the_ratios_describe_the_shipped_file(judged: Judged) -> None:
    outputs = judged.run()
    float_model = judged.project.folder("finetune") / "model.onnx"
    shipped = judged.project.folder("export@x86_ort_int8") / "model.onnx"
    counted = sum(w.size for w in tiny_onnx.weights(float_model).values())
    carried = sum(w.size for w in tiny_onnx.weights(shipped).values())
    found = {name: outputs.measures[name].value for name in outputs.measures if "ratio" in name}
    assert found["params_ratio"] == pytest.approx(counted / carried)
    assert found["macs_ratio"] == pytest.approx(2.0)  # twice the channels
    assert found["size_ratio"] == pytest.approx(float_model.stat().st_size / shipped.stat().st_size)
    assert found["latency_ratio"] == 2.5


def test_a_drop_inside_the_budget_passes(judged: Judged) -> None:
    outputs = judged.run("compress.budget.drop_max=0.05")
    assert outputs.facts.passed is True
    assert outputs.facts.metric == "accuracy"
    reason, classes = outputs.facts.reasons
    assert classes == (
        "no class is shown to lose more recall on test than 0.1 (verdict.class_drop_max)"
    )
    assert reason.startswith("accuracy drops by 0.0000 (-0.04")
    assert reason.endswith(
        ", n = 90) on test; the 95% upper bound 0.0292 is within the budget of 0.05 "
        "(compress.budget)"
    )
    assert outputs.facts.budget.status == "met"
    assert outputs.facts.budget.bound == pytest.approx(2.7055 / (90 + 2.7055), rel=1e-4)


def test_a_budget_that_the_test_set_cannot_decide_is_not_passed_and_says_the_n_needed(
    judged: Judged,
) -> None:
    outputs = judged.run("compress.budget.drop_max=0.02")
    assert outputs.facts.passed is False
    (reason,) = outputs.facts.failed
    assert reason.endswith(
        "the 95% upper bound 0.0292 is above the budget of 0.02 (compress.budget): undecidable "
        "with n = 90, about 328 test images would show whether it holds"
    )
    assert outputs.facts.budget.to_json() == {
        "status": "undecided",
        "bound": pytest.approx(0.0292, abs=1e-4),
        "n_needed": 328,
    }


def test_a_limit_that_does_not_hold_fails_without_an_error(judged: Judged) -> None:
    limits = "[{metric: calibration_error, max: 0.0}, {metric: worst_recall, min: 0.5}]"
    outputs = judged.run(f"verdict.limits={limits}", "compress.budget.drop_max=0.05")
    assert outputs.facts.passed is False
    error = outputs.measures["calibration_error"].value
    assert outputs.facts.reasons[1] == (
        f"calibration_error is {error:.4f} (n = 90) on test, not at most 0 (verdict.limits[0])"
    )
    assert outputs.facts.reasons[2].endswith("n = 30) on test, at least 0.5 (verdict.limits[1])")
    assert judged.read("metrics.json")["passed"] is False


def test_a_drop_above_the_budget_fails() -> None:
    measures = {"accuracy_drop": Measure(value=0.02, unit="1", n=50, low=-0.01, high=0.06)}
    asked = Budget(metric="accuracy", drop_max=0.01)
    found = accuracy_budget.BudgetJudgement("exceeded", 0.0712)
    assert release_gate.check_budget(measures, asked, found) == (
        False,
        "accuracy drops by 0.0200 (-0.0100 to 0.0600, n = 50) on test; the 95% upper bound 0.0712 "
        "is above the budget of 0.01 (compress.budget)",
    )


def test_one_limit_may_bound_both_sides() -> None:
    measures = {"accuracy": Measure(value=0.9, unit="1", n=50)}
    held = release_gate.check_limits(measures, [Limit(metric="accuracy", min=0.8, max=0.8)])
    assert held == [
        (True, "accuracy is 0.9000 (n = 50) on test, at least 0.8 (verdict.limits[0])"),
        (False, "accuracy is 0.9000 (n = 50) on test, not at most 0.8 (verdict.limits[0])"),
    ]


def test_the_confusion_is_the_shipped_files(judged: Judged) -> None:
    judged.run()
    doc = judged.read("confusion.json")
    chosen = judged.test_logits(judged.project.folder("export@x86_ort_int8") / "model.onnx")
    labels = tiny_onnx.labels(COUNTS["test"])
    assert doc["classes"] == CLASSES
    assert doc["counts"] == accuracy_statistics.confusion(chosen, labels).tolist()
    assert np.sum(doc["float"]) == COUNTS["test"]


def test_every_test_image_has_both_answers(judged: Judged) -> None:
    judged.run()
    table = pq.read_table(judged.out / "predictions.parquet").to_pylist()
    assert [row["row"] for row in table] == [f"test-{at:03d}" for at in range(COUNTS["test"])]
    assert {row["label"] for row in table} == set(CLASSES)
    for row in table[:5]:
        assert len(row["probabilities"]) == len(row["float_probabilities"]) == 3
        assert row["probability"] == pytest.approx(max(row["probabilities"]))
        assert row["predicted"] == CLASSES[int(np.argmax(row["probabilities"]))]
        assert sum(row["float_probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["float_predicted"] in CLASSES


def test_the_metrics_for_dvc_are_plain_numbers(judged: Judged) -> None:
    outputs = judged.run()
    plain = judged.read("metrics.json")
    assert plain["target"] == "x86_ort_int8"
    assert plain["accuracy"] == outputs.measures["accuracy"].value
    assert plain["size_ratio"] == outputs.measures["size_ratio"].value
    assert all(isinstance(value, float | bool | str) for value in plain.values())
    assert not any("recall." in name for name in plain)


def test_the_verdict_holds_all_of_it_in_one_file(judged: Judged) -> None:
    outputs = judged.run()
    doc = judged.read("verdict.json")
    assert doc["passed"] is outputs.facts.passed
    assert Measure.from_dict(doc["measures"]["accuracy_drop"]) == outputs.measures["accuracy_drop"]


def test_the_same_inputs_give_the_same_bytes(judged: Judged) -> None:
    judged.run()
    first = {path.name: path.read_bytes() for path in judged.out.iterdir()}
    judged.run()
    assert {path.name: path.read_bytes() for path in judged.out.iterdir()} == first
    assert len(first) == 5


def test_a_class_given_up_fails_though_the_mean_passes(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verdict.score

    def gives_one_up(*args: Any) -> Any:
        before, after = real(*args)
        after[::9] = before[::9, [1, 0, 2]]  # every third image of the class "left" is mistaken
        return before, after

    monkeypatch.setattr(verdict, "score", gives_one_up)
    outputs = judged.run("compress.budget.drop_max=0.5")
    assert outputs.facts.passed is False
    (failed,) = outputs.facts.failed
    assert failed.startswith(
        "recall drops on test by more than 0.1 (verdict.class_drop_max): 'left' 0.3333 (0.1"
    )
    assert outputs.measures["recall_drop.left"].n == 30
    assert judged.run("compress.budget.drop_max=0.5", "verdict.class_drop_max=null").facts.passed


def test_a_broken_limit_of_the_goal_fails_the_verdict(judged: Judged) -> None:
    path = judged.project.folder("select") / "choice.json"
    choice = json.loads(path.read_text())
    choice["candidates"][1]["over"] = ["macs is 9, above compress.constraints.macs_max 8"]
    manifest.write_json(path, choice)
    outputs = judged.run("compress.budget.drop_max=0.05")
    assert list(outputs.facts.failed) == ["macs is 9, above compress.constraints.macs_max 8"]


def test_each_verdict_on_the_same_images_is_counted_once_in_the_project_s_ledger(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FETTLE_ROOT", raising=False)
    file = judged.project.root / "verdicts.jsonl"
    first = judged.run().facts.ledger
    assert (first.verdicts, first.models) == (1, 1)
    kept = file.read_text()
    assert judged.run().facts.ledger == first  # the same file again is no second look
    assert file.read_text() == kept == (judged.out / "verdicts.jsonl").read_text()

    wider = judged.run("compress.budget.drop_max=0.5")
    assert (wider.facts.ledger.verdicts, wider.facts.ledger.models) == (2, 1)
    assert wider.facts.ledger.rows == first.rows
    said = "warning: these 90 test images have judged 2 times (1 file), each bound at "
    assert [reason for reason in wider.facts.reasons if reason.startswith(said)]
    assert not [reason for reason in wider.facts.failed if "judged" in reason]
    assert wider.facts.passed is judged.run("compress.budget.drop_max=0.5").facts.passed
    assert len(file.read_text().splitlines()) == 2
    images = pq.read_table(judged.out / "predictions.parquet")["sha256"].to_pylist()
    assert len(set(images)) == 90
