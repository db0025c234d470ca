"""TensorRT's dialect is audited before a file is handed on: what its parser refuses is named."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware.runtimes import tensorrt
from fettle.quantize.quantizers import calibrated_int8


def int8(folder: Path, dialect: str) -> Path:
    model = tiny_onnx.classifier(folder / "float.onnx", width=16)
    images = tiny_onnx.images(96)
    calibrated_int8.apply(
        model, folder / "int8.onnx", batches=[images[:64]], held_out=images[64:],
        calibrate="minmax", weight_bits=8, disagreement_max=0.5, dialect=dialect,
    )  # fmt: skip
    return folder / "int8.onnx"


def test_its_own_dialect_is_taken(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    model = int8(tmp_path, "qdq_s8s8_symmetric")
    assert tensorrt.audit(onnx.load(model)) == []
    assert (out / tensorrt.compile(model, out)).read_bytes() == model.read_bytes()


@pytest.mark.parametrize("dialect", ["qdq_u8s8", "qdq_u8s8_whole"])
def test_another_dialect_is_refused_with_what_is_wrong_in_it(tmp_path: Path, dialect: str) -> None:
    model = int8(tmp_path, dialect)
    with pytest.raises(ModelError) as caught:
        tensorrt.compile(model, tmp_path)
    text = str(caught.value)
    assert text.startswith("int8.onnx is not in the int8 dialect that TensorRT takes: got ")
    assert "uint8 in QuantizeLinear of input" in text
    assert "; qdq_s8s8_symmetric: signed values, every zero point 0, no quantized bias" in text
    assert not (tmp_path / tensorrt.ENTRY).exists()


def test_one_zero_point_that_is_not_0_and_a_quantized_bias_are_found(tmp_path: Path) -> None:
    proto = onnx.load(int8(tmp_path, "qdq_s8s8_symmetric"))
    start = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear")
    zero = next(t for t in proto.graph.initializer if t.name == start.input[2])
    moved = onnx.numpy_helper.to_array(zero) + 3
    zero.CopyFrom(onnx.numpy_helper.from_array(moved.astype("int8"), zero.name))
    found = tensorrt.audit(proto)
    assert f"a zero point that is not 0 in QuantizeLinear of {start.input[0]}" in found
    bias = onnx.helper.make_tensor("bias", onnx.TensorProto.INT32, [1], [7])
    proto.graph.initializer.append(bias)
    inputs = ["bias", start.input[1]]
    proto.graph.node.append(onnx.helper.make_node("DequantizeLinear", inputs, ["b"]))
    assert "a quantized bias (bias)" in tensorrt.audit(proto)
