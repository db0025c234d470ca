"""Measure operators for the search, or nothing where nobody will ask."""

from __future__ import annotations

import dataclasses
import importlib
import json
import platform
from pathlib import Path

import pytest
import tiny_onnx
from tiny_project import CLASSES, TinyProject, settings

from fettle import manifest
from fettle.errors import ProjectError
from fettle.hardware import machine_fingerprint, operator_cost_table, width_sweep
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import latency_table as stage

TARGET = "x86_ort_fp32"


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TARGET, "x86_ort_int8"):
        module = importlib.import_module(f"fettle.hardware.targets.{name}")
        here = dataclasses.replace(module.TARGET, machine=(platform.machine(),))
        monkeypatch.setattr(module, "TARGET", here)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    project = TinyProject(tmp_path)
    tiny_onnx.pooled(project.folder("finetune") / "model.onnx")
    project.seal("finetune", facts={"classes": CLASSES, "trains": True})
    return project


def run(project: TinyProject, *overrides: str) -> tuple[Outputs, MemoryRecorder]:
    recorder = MemoryRecorder()
    wanted = settings("compress.recipe=auto", *overrides)
    outputs = stage.run(
        wanted, project.inputs("finetune"), project.folder("latency_table"), recorder
    )
    return outputs, recorder


def test_the_table_predicts_networks_it_did_not_learn_from(project: TinyProject) -> None:
    outputs, recorder = run(project, f"compress.objective.target={TARGET}")
    path = project.folder("latency_table") / operator_cost_table.NAME
    costs = operator_cost_table.read(
        path, json.loads(json.dumps(machine_fingerprint.fingerprint()))
    )[TARGET]
    model = width_sweep.list_operators(project.folder("finetune") / "model.onnx")
    assert [one.form for one in model] == ["conv 3x3"] * 3 + ["pool 8x8 /8", "gemm"]
    assert operator_cost_table.predict(costs, model).value > 0
    assert outputs.measures[f"error_{TARGET}"].n == len(costs.checks) == 5
    assert outputs.facts.not_measured == {}
    assert recorder.notes[f"predictor.{TARGET}"].startswith("off by at most ")


def test_the_int8_form_is_what_an_int8_target_is_timed_on(project: TinyProject) -> None:
    outputs, _ = run(project, "compress.objective.target=x86_ort_int8")
    assert list(outputs.facts.checks) == ["x86_ort_int8"]
    table = json.loads((project.folder("latency_table") / operator_cost_table.NAME).read_text())
    assert any("conv 3x3" in place for place in table["targets"]["x86_ort_int8"]["fits"])


def test_a_recipe_that_is_a_list_measures_nothing(project: TinyProject) -> None:
    outputs, _ = run(project, "compress.recipe=[]", f"compress.objective.target={TARGET}")
    assert outputs.measures == {}
    assert outputs.facts.not_measured == {
        TARGET: "compress.recipe is a list, so nothing is predicted"
    }


def test_a_model_that_does_not_train_measures_nothing(project: TinyProject) -> None:
    project.seal("finetune", facts={"classes": CLASSES, "trains": False})
    outputs, _ = run(project, f"compress.objective.target={TARGET}")
    assert list(outputs.facts.not_measured.values()) == [
        "family 'efficientnet_lite' does not train, so nothing is searched"
    ]


def test_a_target_of_other_hardware_is_not_measured(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"fettle.hardware.targets.{TARGET}")
    monkeypatch.setattr(module, "TARGET", dataclasses.replace(module.TARGET, machine=("sparc",)))
    outputs, _ = run(project, f"compress.objective.target={TARGET}")
    assert outputs.facts.not_measured == {
        TARGET: f"it runs on sparc, this machine is {platform.machine()}"
    }


def test_a_machine_that_is_not_the_recorded_one_is_refused(project: TinyProject) -> None:
    manifest.write_json(project.root / "inputs" / "machine.json", {"cpu": "another"})
    with pytest.raises(ProjectError, match=r"inputs/machine\.json does not describe this machine"):
        run(project)
