from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_onnx
from tiny_project import COUNTS, TinyProject, pixels, settings

from fettle.data import image_table
from fettle.hardware.runtimes import Availability, openvino, ort
from fettle.preprocessing import Preprocess
from fettle.quantize import static_int8
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Outputs
from stages import export


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return TinyProject(tmp_path)


def run(project: TinyProject, target: str) -> tuple[Outputs, Path]:
    out = project.folder(f"export@{target}")
    inputs = project.inputs("ingest", "validate", "compress", target=target)
    return export.run(settings(), inputs, out, MemoryRecorder()), out


def test_the_plain_target_gets_the_compressed_onnx_as_it_is(project: TinyProject) -> None:
    outputs, out = run(project, "x86_ort_fp32")
    source = project.folder("compress") / "model.onnx"
    assert (out / "model.onnx").read_bytes() == source.read_bytes()
    assert outputs.facts.entry == "model.onnx"
    assert outputs.facts.size_bytes == source.stat().st_size
    assert outputs.facts.dialect is None
    assert outputs.facts.version == ort.available().version


def test_an_int8_target_is_calibrated_on_training_images(project: TinyProject) -> None:
    outputs, out = run(project, "x86_ort_int8")
    facts = outputs.facts
    assert facts.calibration_images == 48
    assert (facts.quantized_ops, facts.float_ops) == ({"Conv": 2, "Gemm": 1}, {})
    assert (facts.precision, facts.dialect) == ("int8", "qdq_u8s8")
    normalise = Preprocess(size_px=8, channels=1, mean=0.5, std=0.5).normalise
    train = normalise(pixels(COUNTS["train"], seed=0))
    static_int8.apply(
        project.folder("compress") / "model.onnx",
        project.root / "wanted.onnx",
        batches=[train[:32], train[32:]],
        calibrate=facts.calibrate,
    )
    assert (out / "model.onnx").read_bytes() == (project.root / "wanted.onnx").read_bytes()
    assert [path.name for path in out.iterdir()] == ["model.onnx"]


def test_the_cost_is_counted_on_the_file_that_ships(project: TinyProject) -> None:
    plain, _ = run(project, "x86_ort_fp32")
    int8, _ = run(project, "x86_ort_int8")
    assert plain.facts.macs == int8.facts.macs == 64 * (4 * 9 + 4 * 9 + 4 * 3)
    weights = sum(
        w.size for w in tiny_onnx.weights(project.folder("compress") / "model.onnx").values()
    )
    assert plain.facts.parameters == weights
    assert int8.facts.parameters > weights


@pytest.mark.skipif(not openvino.available().ok, reason="needs openvino")
def test_both_int8_targets_of_a_dialect_start_from_the_same_file(project: TinyProject) -> None:
    outputs, out = run(project, "x86_openvino_int8")
    assert sorted(path.name for path in out.iterdir()) == ["model.bin", "model.xml"]
    assert outputs.facts.size_bytes == sum(path.stat().st_size for path in out.iterdir())
    _, other = run(project, "x86_ort_int8")
    batch = tiny_onnx.images(30, seed=4)
    ours = openvino.open(out / "model.xml", threads=1).run(batch)
    theirs = ort.open(other / "model.onnx", threads=1).run(batch)
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


def test_dynamic_int8_takes_no_calibration(project: TinyProject) -> None:
    outputs, out = run(project, "x86_ort_dynamic_int8")
    facts = outputs.facts
    assert (facts.quantized_ops, facts.float_ops) == ({"MatMulInteger": 1}, {"Conv": 2})
    assert (facts.precision, facts.dialect) == ("dynamic_int8", None)
    assert "calibration_images" not in facts
    assert [path.name for path in out.iterdir()] == ["model.onnx"]


def test_a_runtime_that_refuses_the_precision_leaves_its_reason_and_no_file(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "compile", ort.compile)  # ORT has no bfloat16
    outputs, out = run(project, "x86_openvino_bf16")
    assert outputs.facts.refused.startswith("ONNX Runtime does not compute in bfloat16")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("target", ["x86_ort_int8", "x86_openvino_fp32"])
def test_the_same_inputs_give_the_same_bytes(project: TinyProject, target: str) -> None:
    if target == "x86_openvino_fp32" and not openvino.available().ok:
        pytest.skip("needs openvino")
    files = []
    for _ in range(2):
        outputs, out = run(project, target)
        files.append(({path.name: path.read_bytes() for path in out.iterdir()}, outputs.facts))
    assert files[0] == files[1]


def test_a_model_that_branches_is_refused_for_int8_alone(project: TinyProject) -> None:
    tiny_onnx.branching(project.folder("compress") / "model.onnx")
    outputs, out = run(project, "x86_ort_int8")
    assert outputs.facts.refused == (
        "model.onnx cannot be quantized to int8: it branches on its data: got If (1x); the int8 "
        "ranges are fixed before the run, so every image must take the same path. Fix: drop the "
        "int8 targets (params.yaml: targets), or export the model without these operators."
    )
    assert list(out.iterdir()) == []
    plain, _ = run(project, "x86_ort_fp32")
    assert "refused" not in plain.facts


def test_a_missing_runtime_still_gets_what_it_would_compile(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = Availability(False, None, "the package openvino is not installed", "pip install it")
    monkeypatch.setattr(openvino, "available", lambda: absent)
    outputs, out = run(project, "x86_openvino_int8")
    facts = outputs.facts
    assert facts.entry is None
    assert facts.unavailable == "the package openvino is not installed (install: pip install it)"
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
    operators = {node.op_type for node in onnx.load(out / "model.onnx").graph.node}
    assert "QuantizeLinear" in operators


def test_a_model_the_runtime_cannot_compile_leaves_no_files(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.folder("compress") / "model.onnx").write_bytes(b"not a model")
    outputs, out = run(project, "x86_ort_fp32")
    assert outputs.facts.refused.startswith("the cost of model.onnx cannot be counted: got ")
    assert list(out.iterdir()) == []


def test_the_method_is_chosen_by_measurement_and_said(project: TinyProject) -> None:
    out = project.folder("export@x86_ort_int8")
    inputs = project.inputs("ingest", "validate", "compress", target="x86_ort_int8")
    facts = export.run(settings("export.calibrate=auto"), inputs, out, MemoryRecorder()).facts
    assert set(facts.calibrate_errors) == {"minmax", "entropy", "percentile"}
    assert facts.calibrate_errors[facts.calibrate] == min(facts.calibrate_errors.values())
    assert facts.disagreement <= 0.02
    assert facts.disagreement_images == 48


def test_mislabelled_calibration_images_are_refused(project: TinyProject) -> None:
    path = project.folder("ingest") / image_table.IMAGES
    table = pq.read_table(path)
    turned = {"left": "middle", "middle": "right", "right": "left"}
    labels = pa.array([turned[one] for one in table["label"].to_pylist()])
    at = table.schema.get_field_index("label")
    pq.write_table(table.set_column(at, "label", labels), path)
    project.seal("ingest")
    outputs, out = run(project, "x86_ort_int8")
    assert outputs.facts.refused.startswith(
        "the calibration images cannot give int8 ranges: got images of which the float model is "
        "right on 0%; guessing gets 33%: "
    )
    assert list(out.iterdir()) == []
    assert "refused" not in run(project, "x86_ort_fp32")[0].facts


def test_what_a_toolchain_raises_unforeseen_costs_its_own_target_alone(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise KeyError("no such kernel")

    monkeypatch.setattr(openvino, "compile", broken)
    outputs, _ = run(project, "x86_openvino_fp32")
    assert outputs.facts.refused == (
        "this target failed in a way that was not foreseen: got KeyError: 'no such kernel'. Fix: "
        "drop it (params.yaml: targets), or report it with the traceback above; the other targets "
        "go on."
    )


def test_seven_bits_are_offered(project: TinyProject) -> None:
    out = project.folder("export@x86_ort_int8")
    inputs = project.inputs("ingest", "validate", "compress", target="x86_ort_int8")
    export.run(settings("export.weight_bits=7"), inputs, out, MemoryRecorder())
    held = [w for w in tiny_onnx.weights(out / "model.onnx").values() if w.dtype == np.int8]
    assert {int(np.abs(w.astype(int)).max()) for w in held if w.ndim > 1} == {64}


def test_the_weights_alone_are_stored_in_int8_for_a_w8_target(project: TinyProject) -> None:
    outputs, out = run(project, "x86_ort_w8")
    assert outputs.facts.quantized_ops == {"Conv": 2, "Gemm": 1}
    assert "calibrate" not in outputs.facts
    kinds = [node.op_type for node in onnx.load(out / "model.onnx").graph.node]
    assert kinds.count("DequantizeLinear") == 3
    assert "QuantizeLinear" not in kinds


def test_the_weights_alone_are_stored_in_float16_for_a_w16_target(project: TinyProject) -> None:
    outputs, out = run(project, "x86_ort_w16")
    assert outputs.facts.quantized_ops == {"Conv": 2, "Gemm": 1}
    assert [n.op_type for n in onnx.load(out / "model.onnx").graph.node].count("Cast") == 3


def test_the_weights_alone_are_stored_in_int4_for_a_w4_target(project: TinyProject) -> None:
    outputs, out = run(project, "x86_ort_w4")
    facts = outputs.facts
    assert (facts.precision, facts.dialect) == ("w4", None)
    assert facts.quantized_ops == {"Conv": 2, "Gemm": 1}
    assert facts.calibration_images == 48
    assert facts.disagreement <= 0.02
    held = [t for t in onnx.load(out / "model.onnx").graph.initializer if len(t.dims) > 1]
    kinds = [t.data_type for t in held]
    assert kinds.count(onnx.TensorProto.INT4) == 3 - len(facts.kept_int8) > 0
    assert [path.name for path in out.iterdir()] == ["model.onnx"]
