"""Export and evaluate of LiteRT's and Vela's targets: one int8 dialect, three kinds of evidence."""

from __future__ import annotations

import dataclasses
import platform
import sys
from pathlib import Path

import onnx
import pytest
from tiny_project import TinyProject, settings

from fettle.facts.export_facts import ExportFacts
from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import litert, vela
from fettle.hardware.targets import x86_litert_int8
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import evaluate, export


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    here = dataclasses.replace(x86_litert_int8.TARGET, machine=(platform.machine(),))
    monkeypatch.setattr(x86_litert_int8, "TARGET", here)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return TinyProject(tmp_path, noise=0.9, width=512)


@pytest.fixture
def _installed() -> None:
    toolchain_environment.install(litert.TOOLCHAIN, say=sys.stderr.write)
    toolchain_environment.install(vela.TOOLCHAIN, say=sys.stderr.write)


def exported(project: TinyProject, name: str) -> ExportFacts:
    out = project.folder(f"export@{name}")
    inputs = project.inputs("ingest", "validate", "compress", target=name)
    made = export.run(settings(), inputs, out, MemoryRecorder())
    project.seal(f"export@{name}", facts=made.facts)
    return made.facts


def evaluated(project: TinyProject, name: str) -> Outputs:
    reads = ("ingest", "validate", "finetune", "compress", "export")
    inputs = project.inputs(*reads, target=name)
    return evaluate.run(settings(), inputs, project.folder(f"evaluate@{name}"), MemoryRecorder())


@pytest.mark.parametrize("name", ["x86_litert_int8", "android_litert_int8", "ethos_u55_128"])
def test_without_its_toolchain_a_target_says_how_to_install_it(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(project.root / "toolchains"))
    facts = exported(project, name)
    toolchain = "vela" if name.startswith("ethos") else "litert"
    assert facts.dialect == "litert"
    assert facts.unavailable == (
        f"the toolchain {toolchain} is not installed (install: fettle targets install {toolchain})"
    )


@pytest.mark.toolchain
@pytest.mark.usefixtures("_installed")
def test_on_x86_the_int8_file_is_timed_and_a_phone_s_is_the_same_file(
    project: TinyProject,
) -> None:
    here, phone = exported(project, "x86_litert_int8"), exported(project, "android_litert_int8")
    assert (here.entry, here.dialect, here.version) == ("model.tflite", "litert", "2.3.0")
    files = [project.folder(f"export@{n}") / "model.tflite" for n in (here.target, phone.target)]
    assert files[0].read_bytes() == files[1].read_bytes()
    timed = evaluated(project, "x86_litert_int8")
    assert timed.facts.evidence == "measured", timed.facts.reason
    assert timed.facts.parity.top1 > 0.9
    assert timed.measures["latency_p50_ms"].value > 0
    emulated = evaluated(project, "android_litert_int8").facts
    assert (emulated.verdict, emulated.evidence) == ("ship", "emulated")
    assert emulated.latency_ms is None
    assert emulated.reason == (
        "its answers, by LiteRT with XNNPACK on this CPU, which runs the very file, agree with the "
        "compressed model's"
    )
    assert str(emulated.next_command).startswith("adb push model.tflite /data/local/tmp/ && adb")
    assert emulated.parity == timed.facts.parity


@pytest.mark.toolchain
@pytest.mark.usefixtures("_installed")
def test_an_ethos_u_is_estimated_and_its_whole_model_is_on_the_npu(project: TinyProject) -> None:
    exported(project, "ethos_u55_128")
    outputs = evaluated(project, "ethos_u55_128")
    facts = outputs.facts
    assert (facts.verdict, facts.evidence, facts.accelerator_share) == ("ship", "estimated", 1.0)
    assert "latency_p50_ms" not in outputs.measures
    assert facts.estimates is not None
    assert {one.what: one.unit for one in facts.estimates}["SRAM in use"] == "KiB"
    assert facts.reason == (
        "its answers, by LiteRT's int8 reference kernels, on the file that Vela compiled, agree "
        "with the compressed model's"
    )


@pytest.mark.toolchain
@pytest.mark.usefixtures("_installed")
def test_an_operator_that_the_npu_leaves_to_the_cpu_refuses_the_target(
    project: TinyProject,
) -> None:
    path = project.folder("compress") / "model.onnx"
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.append(onnx.helper.make_node("LogSoftmax", ["plain"], ["logits"], "log"))
    onnx.save(model, path)
    exported(project, "ethos_u55_128")
    facts = evaluated(project, "ethos_u55_128").facts
    assert facts.verdict == "refused"
    assert facts.reason == (
        "a part of the model does not run on Arm Ethos-U55-128: got DEQUANTIZE (plain_dequant), "
        "LOG_SOFTMAX (logits), QUANTIZE (logits_quantized) on the CPU (67% of the operators on the "
        "accelerator); an operator that falls back in silence costs more than it says. Fix: "
        "replace that operator in the model, or drop this target (params.yaml: targets)."
    )


@pytest.mark.parametrize(
    ("runtime", "dialect", "taken"),
    [
        ("litert", "qdq_u8s8", "litert"),
        ("vela", "qdq_u8s8", "litert"),
        ("ort", "litert", "qdq_u8s8"),
        ("openvino", "litert", "qdq_u8s8"),
    ],
)
def test_a_runtime_with_another_dialect_is_refused_before_anything_is_made(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch, runtime: str, dialect: str, taken: str
) -> None:
    wrong = dataclasses.replace(x86_litert_int8.TARGET, runtime=runtime, dialect=dialect)
    monkeypatch.setattr(x86_litert_int8, "TARGET", wrong)
    facts = exported(project, "x86_litert_int8")
    assert facts.refused is not None
    assert facts.refused.startswith(
        f"{runtime} does not take int8 files of this dialect: got {dialect}; it takes {taken}"
    )
    assert facts.entry is None
