"""Evaluate, select and package of a target that is never timed: an emulator's answers alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_onnx
from evaluate_stage import exported, run, wide_project
from tiny_project import TinyProject

from fettle.hardware.runtimes import Estimate, Placement, ort
from fettle.hardware.targets import EvidenceKind, x86_ort_fp32
from fettle.stage_contract import Outputs

BOARD = {
    "hardware": "a board",
    "family": "board",
    "machine": ("board",),
    "evidence": "emulated",
    "next_command": "scp model.onnx board:",
}


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return wide_project(tmp_path)


def board(monkeypatch: pytest.MonkeyPatch, evidence: EvidenceKind = "emulated") -> None:
    """Let x86_ort_fp32 stand for a board that ONNX Runtime emulates."""
    record = dataclasses.replace(x86_ort_fp32.TARGET, **{**BOARD, "evidence": evidence})
    monkeypatch.setattr(x86_ort_fp32, "TARGET", record)


def evaluated(project: TinyProject, **facts: Any) -> Outputs:
    source = project.folder("compress") / "model.onnx"
    shutil.copyfile(source, project.folder("export@x86_ort_fp32") / "model.onnx")
    exported(project, "x86_ort_fp32", **facts)
    return run(project, "x86_ort_fp32")


def test_an_emulated_file_is_judged_by_its_answers_and_never_timed(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(monkeypatch)
    monkeypatch.setattr(ort, "ANSWERED_BY", "an emulator", raising=False)
    outputs = evaluated(project)
    facts = outputs.facts
    assert (facts.verdict, facts.evidence) == ("ship", "emulated")
    assert facts.reason == ("its answers, by an emulator, agree with the compressed model's")
    assert facts.answered_by == "an emulator"
    assert facts.parity.top1 == 1.0
    assert facts.next_command == "scp model.onnx board:"
    assert facts.latency_ms is None
    told = [name for name in outputs.measures if "latency" in name or "speed" in name]
    assert told == []
    assert "peak_memory_bytes" not in outputs.measures
    assert outputs.measures["accuracy_drop"].n == 60
    assert (project.root / "answers.safetensors").is_file()


def test_wrong_answers_are_refused_whatever_the_exit_code(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(monkeypatch)
    evaluated(project)
    model = project.folder("export@x86_ort_fp32") / "model.onnx"
    held = tiny_onnx.weights(model)
    name = next(key for key, weight in held.items() if weight.ndim == 2)
    tiny_onnx.replace_weight(model, name, held[name][::-1].copy())
    facts = run(project, "x86_ort_fp32").facts
    assert (facts.verdict, facts.evidence) == ("refused", "emulated")
    assert facts.reason.startswith(
        "it answers otherwise than the compressed model: same winner on "
    )


def test_what_is_compiled_alone_is_unverified_and_does_not_ship(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(monkeypatch, "compile-only")
    outputs = evaluated(project)
    assert (outputs.facts.verdict, outputs.facts.evidence) == ("compiled", "compile-only")
    assert outputs.facts.reason == (
        "compiled, unverified: nothing here runs a file of a board, so it is not shipped; who has "
        "one runs `scp model.onnx board:`"
    )
    assert set(outputs.measures) == {"size_bytes"}
    assert not (project.root / "answers.safetensors").exists()


def test_a_vendors_figures_are_facts_apart_from_the_measures(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(monkeypatch, "estimated")
    cycles = Estimate(what="cycles", value=1200, unit="cycles", tool="a compiler 1.0")
    monkeypatch.setattr(ort, "estimates", lambda _entry: (cycles,), raising=False)
    monkeypatch.setattr(ort, "placement", lambda _entry: Placement(share=1.0), raising=False)
    outputs = evaluated(project)
    assert outputs.facts.accelerator_share == 1.0
    assert json.loads(json.dumps(outputs.facts.to_json()))["estimates"] == [
        {"what": "cycles", "value": 1200, "unit": "cycles", "tool": "a compiler 1.0"}
    ]
    assert not any("cycle" in name for name in outputs.measures)


def test_an_operator_that_falls_back_is_a_refusal_that_names_it(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(monkeypatch)
    placed = Placement(share=0.75, fallback=("Softmax 'prob'",))
    monkeypatch.setattr(ort, "placement", lambda _entry: placed, raising=False)
    facts = evaluated(project).facts
    assert (facts.verdict, facts.evidence) == ("refused", "not measured")
    assert facts.reason == (
        "a part of the model does not run on a board: got Softmax 'prob' on the CPU (75% of the "
        "operators on the accelerator); an operator that falls back in silence costs more than it "
        "says. Fix: replace that operator in the model, or drop this target (params.yaml: targets)."
    )


def test_a_missing_toolchain_is_unavailable_with_how_to_install(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(monkeypatch)
    facts = evaluated(project, unavailable="no compiler (install: apt install it)").facts
    assert (facts.verdict, facts.evidence) == ("unavailable", "not measured")
    assert facts.reason == "no compiler (install: apt install it)"
    assert facts.next_command == "scp model.onnx board:"


def test_answers_that_are_no_numbers_leave_nothing_to_judge(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(monkeypatch)
    evaluated(project)
    model = project.folder("export@x86_ort_fp32") / "model.onnx"
    tiny_onnx.replace_weight(model, "gb", np.full(3, np.nan, dtype=np.float32))
    (project.root / "answers.safetensors").unlink()
    facts = run(project, "x86_ort_fp32").facts
    assert (facts.verdict, facts.evidence) == ("refused", "not measured")
    assert not (project.root / "answers.safetensors").exists()
