"""Each int8 dialect writes what its hardware takes: signs, zero points, and where pairs lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tiny_onnx
from onnx import ModelProto, numpy_helper

from fettle.errors import TargetError
from fettle.hardware import precisions
from fettle.quantize import int8_dialects
from fettle.quantize.quantizers import calibrated_int8


def written(folder: Path, dialect: str) -> ModelProto:
    images = tiny_onnx.images(96)
    model = tiny_onnx.classifier(folder / "float.onnx", width=16)
    calibrated_int8.apply(
        model,
        folder / "int8.onnx",
        batches=[images[:64]],
        held_out=images[64:],
        calibrate="minmax",
        weight_bits=8,
        disagreement_max=0.5,
        dialect=dialect,
    )
    return onnx.load(folder / "int8.onnx")


def zero_points(proto: ModelProto, kind: str) -> list[np.ndarray]:  # type: ignore[type-arg]
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type == kind]
    return [constants[node.input[2]] for node in nodes if len(node.input) > 2]


def test_every_dialect_of_the_precision_is_written_here() -> None:
    made = {dialect.name for dialect in int8_dialects.DIALECTS}
    int8 = precisions.named("int8")
    assert made == set(int8.dialects) - set(int8.toolchain_dialects)


def test_an_npu_s_file_is_int8_from_the_image_to_the_answer(tmp_path: Path) -> None:
    proto = written(tmp_path, "qdq_u8s8_whole")
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    assert makers[proto.graph.output[0].name] == "DequantizeLinear"
    readers = [node.op_type for node in proto.graph.node if "input" in node.input]
    assert readers == ["QuantizeLinear"]
    assert {str(zero.dtype) for zero in zero_points(proto, "QuantizeLinear")} == {"uint8"}


def test_a_cpu_s_file_keeps_its_answer_in_float(tmp_path: Path) -> None:
    proto = written(tmp_path, "qdq_u8s8")
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    assert makers[proto.graph.output[0].name] == "Gemm"


def test_tensorrt_s_file_has_no_zero_point_but_0_and_no_quantized_bias(tmp_path: Path) -> None:
    proto = written(tmp_path, "qdq_s8s8_symmetric")
    points = zero_points(proto, "QuantizeLinear") + zero_points(proto, "DequantizeLinear")
    assert points
    assert {str(point.dtype) for point in points} == {"int8"}
    assert not any(point.any() for point in points)
    kinds = {t.data_type for t in proto.graph.initializer}
    assert onnx.TensorProto.INT32 not in kinds
    ends = {n.output[0] for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    readers = {n.op_type for n in proto.graph.node if ends.intersection(n.input)}
    assert readers <= {"Conv", "Gemm", "Add"}


@pytest.mark.parametrize("dialect", [one.name for one in int8_dialects.DIALECTS])
def test_every_dialect_answers_as_the_float_model_does(tmp_path: Path, dialect: str) -> None:
    written(tmp_path, dialect)
    batch = tiny_onnx.images(120, seed=3)
    answers = [
        ort.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]).run(
            None, {"input": batch}
        )[0]
        for name in ("float.onnx", "int8.onnx")
    ]
    assert (answers[0].argmax(axis=1) == answers[1].argmax(axis=1)).mean() >= 0.95


def test_an_unknown_dialect_is_refused_with_the_choices() -> None:
    with pytest.raises(TargetError) as caught:
        int8_dialects.named("qdq_s8u8")
    assert str(caught.value).startswith(
        "unknown int8 dialect: got 'qdq_s8u8'; the choices are qdq_u8s8, qdq_u8s8_whole, "
        "qdq_s8s8_symmetric. Fix: "
    )
