"""The evaluate stage: what ships, what is refused and why, what is not measured here."""

from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx
from evaluate_stage import exported, here, int8, plain, run, wide_project
from tiny_project import TinyProject

from fettle.errors import ProjectError
from fettle.evaluation import accuracy_statistics
from fettle.hardware import energy_measurement, machine_fingerprint
from fettle.hardware.targets import x86_ort_int8


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return wide_project(tmp_path)


def test_the_plain_target_is_measured_against_the_float_model(project: TinyProject) -> None:
    plain(project)
    outputs = run(project, "x86_ort_fp32")
    facts = outputs.facts
    assert facts.evidence == "measured"
    assert facts.parity.top1 == 1.0
    assert facts.parity.max_abs < 1e-4
    assert facts.baseline_size_bytes > facts.plain_size_bytes == facts.size_bytes
    assert facts.verdict == "ship"
    assert facts.reason.startswith("faster: ")
    assert (
        (facts.energy is None)
        == ("energy_j" in outputs.measures)
        == bool(energy_measurement.counters())
    )
    assert json.loads(json.dumps(facts.to_json())) == facts.to_json()


def test_every_figure_has_its_unit_sample_and_split(project: TinyProject) -> None:
    plain(project)
    measures = run(project, "x86_ort_fp32").measures
    names = {f"{a}{b}" for a in ("", "baseline_") for b in accuracy_statistics.METRICS}
    names |= {f"{name}_drop" for name in accuracy_statistics.METRICS}
    names |= {
        f"{a}latency_{q}_ms"
        for a in ("", "baseline_", "plain_", "best_float_")
        for q in ("p50", "p95", "p99")
    }
    names |= {
        "speedup",
        "speedup_over_best_float",
        "speedup_over_plain",
        "speedup_batch",
        "speedup_by_optimisation",
        "baseline_speedup_by_optimisation",
        "speedup_unoptimised",
        "throughput_images_per_s",
    }
    names |= {"size_bytes", "peak_memory_bytes", "churn"}
    assert set(measures) == names
    assert measures["accuracy"].n == measures["accuracy_drop"].n == 60  # validation's images
    assert measures["latency_p50_ms"].n == 20
    assert (measures["latency_p50_ms"].unit, measures["speedup"].unit) == ("ms", "x")
    assert measures["accuracy_drop"].low is not None
    assert measures["accuracy_drop"].low < 0 < (measures["accuracy_drop"].high or 0)


def test_a_sound_smaller_int8_file_ships(project: TinyProject) -> None:
    # wide enough for int8 to be smaller
    tiny_onnx.classifier(project.folder("compress") / "model.onnx", width=128)
    project.write_reference()
    int8(project)
    outputs = run(project, "x86_ort_int8")
    assert outputs.facts.verdict == "ship"
    assert "smaller: " in outputs.facts.reason
    assert outputs.measures["accuracy_drop"].value < 0.1
    assert outputs.facts.latency_ms.p50 == outputs.measures["latency_p50_ms"].value


def test_a_slower_and_larger_candidate_is_refused_with_the_numbers(project: TinyProject) -> None:
    folder = project.folder("export@x86_ort_int8")
    tiny_onnx.classifier(folder / "model.onnx", width=2000)
    exported(project, "x86_ort_int8")
    # the reference is the candidate's own: nothing but speed and size speaks against it
    small = project.folder("compress") / "model.onnx"
    kept = small.read_bytes()
    small.write_bytes((folder / "model.onnx").read_bytes())
    project.write_reference()
    small.write_bytes(kept)
    outputs = run(project, "x86_ort_int8")
    assert outputs.facts.verdict == "refused"
    assert outputs.facts.evidence == "measured"
    assert outputs.facts.reason.startswith("not shown to be faster: 0.")
    assert f"the speed of the float model in {outputs.facts.best_float}, " in (outputs.facts.reason)
    high = outputs.measures["speedup_over_best_float"].high
    assert high is not None
    assert high < 1


def test_broken_answers_are_refused_though_smaller(project: TinyProject) -> None:
    folder = int8(project)
    held = tiny_onnx.weights(folder / "model.onnx")
    name = next(k for k, w in held.items() if w.dtype == np.int8 and w.ndim == 2)  # Gemm's
    tiny_onnx.replace_weight(folder / "model.onnx", name, held[name][::-1].copy())
    outputs = run(project, "x86_ort_int8")
    assert outputs.facts.verdict == "refused"
    assert outputs.facts.reason.startswith(
        "it answers otherwise than the compressed model: same winner on "
    )
    assert "; from fp32 ONNX to this file, the first layer that diverges is 'gemm' (-" in (
        outputs.facts.reason
    )


def test_answers_that_are_no_numbers_are_refused(project: TinyProject) -> None:
    plain(project)
    model = project.folder("export@x86_ort_fp32") / "model.onnx"
    tiny_onnx.replace_weight(model, "gb", np.full(3, np.nan, dtype=np.float32))
    outputs = run(project, "x86_ort_fp32")
    assert (outputs.facts.verdict, outputs.facts.evidence) == ("refused", "not measured")
    assert outputs.facts.reason == (
        "the model answers with values that are no numbers: got 90 of 90 logits; every logit is "
        "finite. Fix: look for an overflow in the model, or drop this target."
    )


@pytest.mark.parametrize("fact", ["refused", "unavailable"])
def test_what_export_could_not_make_is_not_measured(project: TinyProject, fact: str) -> None:
    exported(project, "x86_ort_int8", entry=None, **{fact: "the reason, in one sentence"})
    outputs = run(project, "x86_ort_int8")
    assert outputs.measures == {}
    assert outputs.facts.verdict == "refused"
    assert outputs.facts.evidence == "not measured"
    assert outputs.facts.reason == "the reason, in one sentence"
    assert outputs.facts.parity is None
    assert outputs.facts.latency_ms is None


def test_a_target_of_other_hardware_is_not_measured_here(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(project)
    int8(project)
    elsewhere = dataclasses.replace(
        x86_ort_int8.TARGET, hardware="RISC-V CPU", machine=("riscv64", "rv64")
    )
    monkeypatch.setattr(x86_ort_int8, "TARGET", elsewhere)
    outputs = run(project, "x86_ort_int8")
    assert outputs.facts.evidence == "not measured"
    assert outputs.facts.reason == (
        "x86_ort_int8 runs on RISC-V CPU (riscv64 or rv64), this machine is "
        f"{platform.machine()}: a latency taken here would say nothing"
    )
    assert outputs.facts.size_bytes > 0


def test_a_machine_that_is_not_the_recorded_one_is_refused(project: TinyProject) -> None:
    plain(project)
    path = project.root / "inputs" / "machine.json"
    here = machine_fingerprint.fingerprint()
    path.write_text(json.dumps({**here, "cpu": "another", "cores": 512}))
    with pytest.raises(ProjectError) as caught:
        run(project, "x86_ort_fp32")
    assert str(caught.value) == (
        "inputs/machine.json does not describe this machine: got cores: 512 there, "
        f"{here['cores']} here; cpu: another there, {here['cpu']} here; a latency is a fact about "
        "a machine, so the measurement depends on that file. Fix: start it with `fettle run`, "
        "which writes the file first."
    )


def test_a_missing_machine_file_is_refused(project: TinyProject) -> None:
    plain(project)
    (project.root / "inputs" / "machine.json").unlink()
    with pytest.raises(ProjectError, match=r"got no such file; a latency is a fact about a mach"):
        run(project, "x86_ort_fp32")


def test_an_uncompressed_model_ships_as_itself(project: TinyProject) -> None:
    source = project.folder("finetune") / "model.onnx"
    (project.folder("compress") / "model.onnx").write_bytes(source.read_bytes())
    project.write_reference()
    plain(project)
    outputs = run(project, "x86_ort_fp32")
    assert outputs.facts.verdict == "ship"
    assert outputs.facts.reason == "it is the float model itself: nothing was compressed"
