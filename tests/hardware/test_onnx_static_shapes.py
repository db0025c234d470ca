"""Shapes and constants of a graph at one batch, and the weights that int8 needs: no toolchain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx
from onnx import TensorProto, helper, numpy_helper

from fettle.hardware.isolated.scripts import onnx_static_shapes, weight_floor

value = helper.make_tensor_value_info


def model(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:  # type: ignore[type-arg]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    ends = [value("input", TensorProto.FLOAT, ["n", 3, 4, 4])], [value("out", 1, None)]
    graph = helper.make_graph(nodes, "tested", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def reshaped_by_shape() -> onnx.ModelProto:
    """A flatten as PyTorch's view(x.shape[0], -1) makes it: sizes gathered from the shape."""
    return model(
        [
            helper.make_node("Relu", ["input"], ["r"], "relu"),
            helper.make_node("Shape", ["r"], ["s"], "shape", start=0, end=1),
            helper.make_node("Concat", ["s", "rest"], ["sizes"], "concat", axis=0),
            helper.make_node("Reshape", ["r", "sizes"], ["out"], "reshape"),
        ],
        rest=np.array([-1], np.int64),
    )


@pytest.mark.parametrize("batch", [1, 2])
def test_what_follows_from_the_shape_alone_becomes_constant(batch: int) -> None:
    found = onnx_static_shapes.infer(reshaped_by_shape(), batch)
    assert [node.op_type for node in found.nodes] == ["Relu", "Reshape"]
    assert found.constants["sizes"].tolist() == [batch, -1]
    assert found.shapes["out"] == (batch, 48)


def test_every_tensor_of_a_classifier_has_its_shape(tmp_path: Path) -> None:
    proto = onnx.load(tiny_onnx.classifier(tmp_path / "given.onnx", width=4))
    found = onnx_static_shapes.infer(proto, 1)
    assert {name: found.shapes[name] for name in ("input", "c1", "a", "f", "logits")} == {
        "input": (1, 1, 8, 8), "c1": (1, 4, 8, 8), "a": (1, 4, 8, 8), "f": (1, 256),
        "logits": (1, 3),
    }  # fmt: skip


def test_a_shape_that_depends_on_the_data_is_refused() -> None:
    nodes = [helper.make_node("NonZero", ["input"], ["out"], "places")]
    with pytest.raises(ValueError, match=r"^the shape behind NonZero \(places\) depends on the "):
        onnx_static_shapes.infer(model(nodes), 1)


def test_an_image_of_free_size_is_refused() -> None:
    proto = reshaped_by_shape()
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "side"
    with pytest.raises(ValueError, match=r"^the input input has a free size beside its batch$"):
        onnx_static_shapes.infer(proto, 1)


def convolution(kernels: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:  # type: ignore[type-arg]
    nodes = [helper.make_node("Conv", ["input", "w", "b"], ["out"], "conv")]
    return model(nodes, w=kernels, b=bias)


def raised(proto: onnx.ModelProto) -> np.ndarray:  # type: ignore[type-arg]
    weight_floor.raise_weights(proto)
    return np.asarray(numpy_helper.to_array(proto.graph.initializer[0]))


def test_a_dead_channel_gets_one_weight_and_the_others_stay() -> None:
    kernels = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    kernels[1] = 0
    after = raised(convolution(kernels.copy(), np.array([0, 0.3, 0], np.float32)))
    assert np.count_nonzero(after[1]) == 1
    assert after[[0, 2]] == pytest.approx(kernels[[0, 2]])
    # 0.3 in steps of an input's scale of 1e-3 times the channel's: it must be a 32-bit integer
    assert 0.3 / (1e-3 * after[1].max() / 127) < 2**31


def test_a_small_weight_keeps_its_sign() -> None:
    kernels = np.array([[1, 1, 1], [-1e-20, 0, 0]], np.float32).reshape(2, 3, 1, 1)
    after = raised(convolution(kernels, np.array([0, 1], np.float32)))
    assert after[1, 0, 0, 0] < -1e-6
