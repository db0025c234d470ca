"""Hold the report's JSON: its shape, its numbers, and what it says of a piece that is missing."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fake_project import TARGETS
from fake_tree import Tree

from fettle import manifest
from fettle.errors import ProjectError, TamperedError
from fettle.report import report_facts, target_rows
from fettle.report.report_document import SCHEMA

SCHEMA_FILE = Path(report_facts.__file__).with_name("schema.json")


def described() -> dict[str, Any]:
    return json.loads(SCHEMA_FILE.read_text())


def closed(schema: Any) -> Any:
    """Forbid every key that the schema does not describe."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        inner["additionalProperties"] = False
    return inner


@pytest.fixture(scope="session")
def doc(finished: Path) -> dict[str, Any]:
    return json.loads(
        json.dumps(report_facts.to_json(report_facts.collect(finished)), allow_nan=False)
    )


def test_the_json_has_every_key_of_its_schema_and_no_other(doc: dict[str, Any]) -> None:
    jsonschema.validate(doc, closed(described()))
    assert doc["schema"] == SCHEMA == described()["title"]


def test_the_schema_refuses_a_missing_key_and_a_wrong_type(doc: dict[str, Any]) -> None:
    for path in (("quality", "drop"), ("targets", 0, "speedup"), ("release", "bento")):
        broken = copy.deepcopy(doc)
        node = broken
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = ["neither number nor null"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, described())
        del node[path[-1]]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, described())


def test_the_json_of_an_unfinished_run_still_meets_the_schema(tree: Tree) -> None:
    tree.drop("verdict", "package", "select", *(f"evaluate@{name}" for name in TARGETS))
    (tree.root / ".fettle" / "last.json").unlink()
    found = report_facts.to_json(report_facts.collect(tree.root))
    jsonschema.validate(json.loads(json.dumps(found)), closed(described()))


def test_quality_is_the_metric_of_the_budget_on_test(doc: dict[str, Any]) -> None:
    quality = doc["quality"]
    assert (quality["metric"], quality["split"]) == ("accuracy", "test")
    assert quality["float"] == {"value": 0.9967, "low": 0.990, "high": 0.999, "n": 899}
    assert quality["compressed"] == {"value": 0.9944, "low": 0.987, "high": 0.9976, "n": 899}
    assert quality["drop"] == {"value": 0.0022, "low": -0.0031, "high": 0.0083, "n": 899}
    assert quality["metrics"]["accuracy"]["drop"] == quality["drop"]
    assert set(quality["metrics"]) == {"accuracy", "macro_f1", "recall.<b>&"}
    assert quality["metrics"]["recall.<b>&"]["float"]["n"] == 299


def test_compression_gives_plain_ratios_and_the_interval_of_the_latency(
    doc: dict[str, Any],
) -> None:
    ratios = doc["compression"]
    assert ratios["params_ratio"] == 9.61
    assert ratios["macs_ratio"] == 7.9
    assert ratios["size_ratio"] == 31.2
    assert ratios["latency_ratio"] == 6.77
    assert ratios["latency_ratio_interval"] == {"value": 6.77, "low": 6.45, "high": 7.1, "n": 200}


def test_a_target_says_what_it_beat_what_int8_gave_back_and_where_it_is_weak(
    doc: dict[str, Any], finished: Path
) -> None:
    rows = {row["target"]: row for row in doc["targets"]}
    int8, plain = rows["x86_ort_int8"], rows["x86_ort_fp32"]
    assert (int8["best_float"], int8["kept_float"]) == ("openvino", ["stem"])
    assert int8["without_vnni"]["layers"] == {"blocks.4.conv": 0.031}
    assert (plain["kept_float"], plain["without_vnni"]) == (None, None)
    known = {t.name: t for t in report_facts.collect(finished).targets}
    assert target_rows.notes(known["x86_ort_int8"]) == [
        "2.50 [2.40, 2.60] the speed of the float model in openvino, its best runtime here",
        "the runtime's graph optimisation alone makes the float model 1.50x as fast and this file "
        "1.25x; with it off in both the speed-up is 3.00 [2.90, 3.10]",
        "back to float: stem",
        "on x86 without VNNI it loses 3.0 % of accuracy",
    ]
    assert len(target_rows.notes(known["x86_ort_fp32"])) == 2


def test_targets_come_in_the_order_of_the_run_each_with_its_evidence(doc: dict[str, Any]) -> None:
    assert [row["target"] for row in doc["targets"]] == TARGETS
    row = doc["targets"][1]
    assert row["chosen"]
    assert row["verdict"] == "ship"
    assert row["accuracy"] == row["accuracy_interval"]["value"] == 0.983
    assert row["accuracy_interval"]["split"] == "validation"
    assert row["parity"] == {"cosine": 0.9991, "max_abs": 0.21, "top1": 0.995}
    assert set(row["latency_ms"]) == {"p50", "p95", "p99"}
    assert row["speedup"]["low"] < row["speedup"]["value"] < row["speedup"]["high"]
    assert doc["targets"][2]["verdict"] == "refused"
    assert doc["targets"][2]["reason"] == "neither faster nor smaller than x86_ort_fp32"


def test_stages_take_their_times_from_the_last_run(doc: dict[str, Any]) -> None:
    first = doc["stages"][0]
    assert first == {"name": "ingest", "seconds": 0.4, "cached": True, "made_seconds": 1.5}
    assert len(doc["stages"]) == 4 + 2 * len(TARGETS) + 3


def test_validation_counts_the_rows_and_what_was_set_aside(doc: dict[str, Any]) -> None:
    assert doc["validation"] == {
        "passed": True,
        "rows": 60,
        "quarantined": 1,
        "by_rule": {"unreadable": 1},
    }


def test_a_release_can_be_walked_back_to_its_data_and_its_commit(doc: dict[str, Any]) -> None:
    release = doc["release"]
    assert release["bento"] == "digits:0123456789ab"
    assert release["model_version"] == "3"
    assert release["git"] == {"commit": "c" * 40, "dirty": True, "source": "e" * 64}
    assert release["data"] == "d" * 64


def test_nothing_is_missing_from_a_whole_run(doc: dict[str, Any]) -> None:
    assert doc["missing"] == []
    assert doc["warnings"] == []
    assert doc["failures"] == []


def test_without_a_run_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as error:
        report_facts.collect(tmp_path)
    assert str(error.value) == (
        f"there is nothing to report in {tmp_path}: got no finished stage under artifacts/; the "
        "report shows the last run of this project. Fix: run `fettle run` first."
    )


def test_an_artefact_edited_by_hand_is_refused(tree: Tree) -> None:
    curve = tree.folder("finetune") / "curve.json"
    curve.write_text(curve.read_text().replace("head", "tail"))
    with pytest.raises(TamperedError, match=r"curve\.json is changed"):
        report_facts.collect(tree.root)


def test_without_a_verdict_quality_is_null_and_says_why(tree: Tree) -> None:
    tree.drop("verdict")
    found = report_facts.to_json(report_facts.collect(tree.root))
    assert found["quality"] is None
    assert found["compression"]["params_ratio"] is None
    assert found["verdict"]["passed"] is None
    assert {"path": "quality", "reason": "verdict has not run"} in found["missing"]
    assert {"path": "compression.params_ratio", "reason": "verdict has not run"} in found["missing"]


def test_a_target_that_was_not_measured_gives_its_reason_for_each_null(tree: Tree) -> None:
    reason = "openvino is not installed (install: pip install openvino)"
    row = {
        "target": TARGETS[3],
        "verdict": "refused",
        "evidence": "not measured",
        "reason": reason,
        "size_bytes": None,
        "parity": None,
        "latency_ms": None,
    }
    tree.seal(f"evaluate@{TARGETS[3]}", row)
    found = report_facts.to_json(report_facts.collect(tree.root))
    last = found["targets"][3]
    assert last["evidence"] == "not measured"
    assert (last["accuracy"], last["latency_ms"], last["speedup"]) == (None, None, None)
    for part in ("accuracy", "parity", "latency_ms", "speedup", "size_bytes"):
        gap = {"path": f"targets[{TARGETS[3]}].{part}", "reason": reason}
        assert gap in found["missing"]


def test_a_target_that_was_exported_but_not_evaluated_is_named(tree: Tree) -> None:
    tree.drop(f"evaluate@{TARGETS[0]}")
    found = report_facts.to_json(report_facts.collect(tree.root))
    reason = f"evaluate@{TARGETS[0]} has not run"
    assert {"path": f"targets[{TARGETS[0]}]", "reason": reason} in found["missing"]


def test_without_a_finished_run_times_come_from_the_records(tree: Tree) -> None:
    (tree.root / ".fettle" / "last.json").unlink()
    (tree.root / "records" / "select.json").unlink()
    found = report_facts.to_json(report_facts.collect(tree.root))
    first = found["stages"][0]
    assert first == {"name": "ingest", "seconds": 1.5, "cached": None, "made_seconds": 1.5}
    assert {"name": "select", "seconds": None, "cached": None, "made_seconds": None} in found[
        "stages"
    ]
    paths = [gap["path"] for gap in found["missing"]]
    assert paths[:2] == ["stages[].cached", "stages[select].seconds"]
    assert found["release"]["bento"] is None
    assert found["release"]["data"] == "d" * 64


def test_a_failed_stage_is_reported_with_its_text(tree: Tree) -> None:
    error = tree.root / "records" / "compress.error.json"
    manifest.write_json(error, {"kind": "user", "text": "the loss is not a number."})
    found = report_facts.to_json(report_facts.collect(tree.root))
    text = "the loss is not a number."
    assert found["failures"] == [{"stage": "compress", "kind": "user", "text": text}]


def test_a_failure_from_before_the_last_finished_run_is_forgotten(tree: Tree) -> None:
    error = tree.root / "records" / "compress.error.json"
    manifest.write_json(error, {"kind": "user", "text": "the loss is not a number."})
    os.utime(error, (1, 1))
    assert report_facts.collect(tree.root).failures == ()


def test_an_artefact_made_from_an_earlier_one_is_called_outdated(tree: Tree) -> None:
    tree.seal(
        "compress",
        {**tree.facts("compress"), "steps": []},
        reads=("ingest", "validate", "finetune"),
    )
    evaluated = ", ".join(sorted(f"evaluate@{name}" for name in TARGETS))
    assert report_facts.collect(tree.root).warnings == (
        f"made from an earlier compress: {evaluated}; `fettle run` renews them",
    )


def test_a_time_of_another_artefact_is_not_taken_for_a_cached_stage(tree: Tree) -> None:
    record = tree.root / "records" / "ingest.json"
    manifest.write_json(record, {**json.loads(record.read_text()), "output_digest": "0" * 64})
    assert report_facts.collect(tree.root).stages[0].made_seconds is None
