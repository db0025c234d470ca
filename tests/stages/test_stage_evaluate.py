from __future__ import annotations

import dataclasses
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_onnx
from tiny_project import TinyProject, settings

from fettle import manifest
from fettle.errors import ProjectError
from fettle.evaluation import accuracy_statistics
from fettle.hardware import energy_measurement, latency_measurement, machine_fingerprint
from fettle.hardware.runtimes import openvino
from fettle.hardware.targets import x86_ort_fp32, x86_ort_int8
from fettle.quantize import static_int8
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import evaluate

READS = ("ingest", "validate", "finetune", "compress", "export")


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the x86 records be this machine's, whatever it is."""
    for module in (x86_ort_fp32, x86_ort_int8):
        here = dataclasses.replace(module.TARGET, machine=(platform.machine(),))
        monkeypatch.setattr(module, "TARGET", here)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    # a float model so wide that the compressed one is faster whatever else the machine does
    return TinyProject(tmp_path, noise=0.9, width=512)


def exported(project: TinyProject, target: str, **facts: Any) -> Path:
    """Seal an export by hand; its model.onnx is there already unless facts say otherwise."""
    folder = project.folder(f"export@{target}")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != manifest.NAME)
    given = {"entry": "model.onnx", "size_bytes": size, "macs": 10_000, **facts}
    project.seal(f"export@{target}", facts=given)
    return folder


def plain(project: TinyProject) -> None:
    source = project.folder("compress") / "model.onnx"
    (project.folder("export@x86_ort_fp32") / "model.onnx").write_bytes(source.read_bytes())
    exported(project, "x86_ort_fp32")


def int8(project: TinyProject) -> Path:
    folder = project.folder("export@x86_ort_int8")
    static_int8.apply(
        project.folder("compress") / "model.onnx",
        folder / "model.onnx",
        batches=[tiny_onnx.images(48)],
        calibrate="minmax",
    )
    return exported(project, "x86_ort_int8")


def run(project: TinyProject, target: str) -> Outputs:
    inputs = project.inputs(*READS, target=target)
    return evaluate.run(settings(), inputs, project.root, MemoryRecorder())


def test_the_plain_target_is_measured_against_the_float_model(project: TinyProject) -> None:
    plain(project)
    outputs = run(project, "x86_ort_fp32")
    facts = outputs.facts
    assert facts["evidence"] == "measured"
    assert facts["parity"]["top1"] == 1.0
    assert facts["parity"]["max_abs"] < 1e-4
    assert facts["baseline_size_bytes"] > facts["plain_size_bytes"] == facts["size_bytes"]
    assert facts["verdict"] == "ship"
    assert facts["reason"].startswith("faster: ")
    assert (
        (facts["energy"] is None)
        == ("energy_j" in outputs.measures)
        == bool(energy_measurement.counters())
    )
    assert json.loads(json.dumps(facts)) == facts


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
    assert outputs.facts["verdict"] == "ship"
    assert "smaller: " in outputs.facts["reason"]
    assert outputs.measures["accuracy_drop"].value < 0.1
    assert outputs.facts["latency_ms"]["p50"] == outputs.measures["latency_p50_ms"].value


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
    assert outputs.facts["verdict"] == "refused"
    assert outputs.facts["evidence"] == "measured"
    assert outputs.facts["reason"].startswith("not shown to be faster: 0.")
    assert (
        f"the speed of the float model in {outputs.facts['best_float']}, "
        in (outputs.facts["reason"])
    )
    high = outputs.measures["speedup_over_best_float"].high
    assert high is not None
    assert high < 1


def test_broken_answers_are_refused_though_smaller(project: TinyProject) -> None:
    folder = int8(project)
    held = tiny_onnx.weights(folder / "model.onnx")
    name = next(k for k, w in held.items() if w.dtype == np.int8 and w.ndim == 2)  # Gemm's
    tiny_onnx.replace_weight(folder / "model.onnx", name, held[name][::-1].copy())
    outputs = run(project, "x86_ort_int8")
    assert outputs.facts["verdict"] == "refused"
    assert outputs.facts["reason"].startswith(
        "it answers otherwise than the compressed model: same winner on "
    )
    assert (
        "; from fp32 ONNX to this file, the first layer that diverges is 'gemm' (-"
        in (outputs.facts["reason"])
    )


def test_answers_that_are_no_numbers_are_refused(project: TinyProject) -> None:
    plain(project)
    model = project.folder("export@x86_ort_fp32") / "model.onnx"
    tiny_onnx.replace_weight(model, "gb", np.full(3, np.nan, dtype=np.float32))
    outputs = run(project, "x86_ort_fp32")
    assert (outputs.facts["verdict"], outputs.facts["evidence"]) == ("refused", "not measured")
    assert outputs.facts["reason"] == (
        "the model answers with values that are no numbers: got 90 of 90 logits; every logit is "
        "finite. Fix: look for an overflow in the model, or drop this target."
    )


@pytest.mark.parametrize("fact", ["refused", "unavailable"])
def test_what_export_could_not_make_is_not_measured(project: TinyProject, fact: str) -> None:
    exported(project, "x86_ort_int8", entry=None, **{fact: "the reason, in one sentence"})
    outputs = run(project, "x86_ort_int8")
    assert outputs.measures == {}
    assert outputs.facts["verdict"] == "refused"
    assert outputs.facts["evidence"] == "not measured"
    assert outputs.facts["reason"] == "the reason, in one sentence"
    assert outputs.facts["parity"] is None
    assert outputs.facts["latency_ms"] is None


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
    assert outputs.facts["evidence"] == "not measured"
    assert outputs.facts["reason"] == (
        "x86_ort_int8 runs on RISC-V CPU (riscv64 or rv64), this machine is "
        f"{platform.machine()}: a latency taken here would say nothing"
    )
    assert outputs.facts["size_bytes"] > 0


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
    assert outputs.facts["verdict"] == "ship"
    assert outputs.facts["reason"] == "it is the float model itself: nothing was compressed"


def test_the_models_are_timed_in_the_same_rounds(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(project)
    calls: list[tuple[tuple[str, ...], int]] = []
    real = latency_measurement.interleave

    def spy(contenders: Any, *, rounds: int, seed: int) -> dict[str, latency_measurement.Times]:
        calls.append((tuple(sorted(contenders)), rounds))
        return real(contenders, rounds=rounds, seed=seed)

    monkeypatch.setattr(latency_measurement, "interleave", spy)
    run(project, "x86_ort_fp32")
    floats = ["float_openvino"] if openvino.available().ok else []
    assert calls == [
        (("baseline", "candidate", *floats, "plain"), 20),
        (("baseline", "candidate"), 20),
        (
            ("baseline", "baseline_unoptimised", "candidate", "candidate_unoptimised"),
            20,
        ),
    ]


def test_energy_is_measured_where_counted_and_else_said_not_to_be(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain(project)
    package = tmp_path / "power" / "intel-rapl:0"
    package.mkdir(parents=True)
    real = energy_measurement.measure
    monkeypatch.setattr(
        energy_measurement,
        "measure",
        lambda run, *, images: real(run, images=images, root=package.parent),
    )
    outputs = run(project, "x86_ort_fp32")
    assert "energy_j" not in outputs.measures
    assert outputs.facts["energy"] == (
        f"NOT_MEASURED: no energy counter that may be read under {package.parent}"
    )
    (package / "name").write_text("package-0\n")
    (package / "energy_uj").write_text("5\n")
    outputs = run(project, "x86_ort_fp32")
    assert outputs.facts["energy"] is None
    assert outputs.measures["energy_j"].n == evaluate.ENERGY_IMAGES


def test_more_rounds_are_taken_up_to_a_bound_while_the_speed_up_is_in_doubt(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(project)
    rounds_taken: list[int] = []

    def alike(contenders: Any, *, rounds: int, seed: int) -> dict[str, latency_measurement.Times]:
        rounds_taken.append(rounds)
        rng = np.random.default_rng(seed)
        return {name: 1 + rng.random(rounds) for name in contenders}

    monkeypatch.setattr(latency_measurement, "interleave", alike)
    outputs = run(project, "x86_ort_fp32")
    assert rounds_taken == [20, 40, 120, 20, 20]
    assert outputs.measures["speedup_over_best_float"].n == 180
    assert outputs.measures["speedup_by_optimisation"].n == 20  # no further look is taken at it
    assert outputs.facts["verdict"] == "refused"


def test_the_best_float_runtime_is_the_one_to_beat(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(project)
    levels = {"baseline": 5.0, "candidate": 2.0, "plain": 2.0, "float_openvino": 1.0}
    levels |= {"baseline_unoptimised": 7.5, "candidate_unoptimised": 2.5}

    def as_said(contenders: Any, *, rounds: int, seed: int) -> dict[str, latency_measurement.Times]:
        del seed
        return {name: np.full(rounds, levels[name]) for name in contenders}

    monkeypatch.setattr(latency_measurement, "interleave", as_said)
    if not openvino.available().ok:
        pytest.skip("needs openvino")
    outputs = run(project, "x86_ort_fp32")
    assert outputs.facts["best_float"] == "openvino"
    assert outputs.measures["best_float_latency_p50_ms"].value == 1.0
    # graph optimisation's gain is told apart from compression's: 5 / 2 = 7.5 / 2.5 * 1.25 / 1.5
    optimised = {
        name: outputs.measures[name].value
        for name in (
            "baseline_speedup_by_optimisation",
            "speedup_by_optimisation",
            "speedup_unoptimised",
            "speedup",
        )
    }
    assert list(optimised.values()) == [1.5, 1.25, 3.0, 2.5]
    assert outputs.facts["reason"].startswith(
        "not shown to be faster: 0.50x (0.50 to 0.50) the speed of the float model in openvino, "
    )


def test_where_the_time_goes_is_written_before_and_after(project: TinyProject) -> None:
    int8(project)
    run(project, "x86_ort_int8")
    doc = json.loads((project.root / "profile.json").read_text())
    assert doc["before"]["int8_share"] == 0
    assert doc["after"]["int8_share"] > 0
    assert sum(kind["ms"] for kind in doc["after"]["kinds"]) == pytest.approx(doc["after"]["ms"])


def test_int8_is_also_scored_as_a_cpu_without_vnni_answers(project: TinyProject) -> None:
    int8(project)
    outputs = run(project, "x86_ort_int8")
    facts = outputs.facts["without_vnni"]
    assert (facts["images"], facts["loses"]) == (60, False)
    assert facts["agreement"] > 0.9
    assert outputs.measures["accuracy_without_vnni"].n == 60
    assert facts["reason"].startswith("on x86 without VNNI no loss is shown (")


def test_a_model_too_large_to_emulate_says_so(project: TinyProject) -> None:
    int8(project)
    exported(project, "x86_ort_int8", macs=10**9)
    outputs = run(project, "x86_ort_int8")
    assert outputs.facts["without_vnni"] == {"reason": "not measured: only 1 images, it takes 32"}
    assert "accuracy_without_vnni" not in outputs.measures
