from __future__ import annotations

from pathlib import Path

import int8_file
import numpy as np
import onnx
import pytest
import tiny_onnx
from onnx import TensorProto, helper, numpy_helper

from fettle.errors import ModelError
from fettle.hardware import onnx_cost

SHAPE = (1, tiny_onnx.SIZE_PX, tiny_onnx.SIZE_PX)
AREA = tiny_onnx.SIZE_PX**2


def graph(path: Path, nodes: list[onnx.NodeProto], shape: list[int | str], **held: object) -> Path:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_a_networks_macs_and_parameters_are_those_counted_by_hand(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "m.onnx", width=4)
    found = onnx_cost.cost(model, shape=SHAPE)
    assert found.layers == {
        "conv1": AREA * 4 * 1 * 9,
        "conv2": AREA * 4 * 9,  # depthwise: one input channel each
        "gemm": 4 * AREA * 3,
    }
    assert found.macs == sum(found.layers.values())
    assert found.parameters == (36 + 4) + 2 + 36 + (4 * AREA * 3 + 3)


def test_the_layers_are_listed_largest_first(tmp_path: Path) -> None:
    found = onnx_cost.cost(tiny_onnx.classifier(tmp_path / "m.onnx", width=9), shape=SHAPE)
    assert list(found.layers.values()) == sorted(found.layers.values(), reverse=True)


def test_int8_has_the_same_macs_and_counts_its_scales(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "m.onnx")
    int8_file.write(model, tmp_path / "q.onnx", batches=[tiny_onnx.images(16)], calibrate="minmax")
    plain = onnx_cost.cost(model, shape=SHAPE)
    int8 = onnx_cost.cost(tmp_path / "q.onnx", shape=SHAPE)
    assert sorted(int8.layers.values()) == sorted(plain.layers.values())
    assert plain.parameters < int8.parameters < plain.parameters + 100


def test_a_matmul_counts_its_inner_size(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["input"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"], "matmul"),
    ]
    weight = np.ones((AREA, 5), dtype=np.float32)
    found = onnx_cost.cost(graph(tmp_path / "m.onnx", nodes, ["n", *SHAPE], w=weight), shape=SHAPE)
    assert (found.macs, found.parameters) == (AREA * 5, AREA * 5)


def test_weights_kept_in_constant_nodes_count_as_well(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((AREA, 5), dtype=np.float32))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Flatten", ["input"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"], "matmul"),
    ]
    found = onnx_cost.cost(graph(tmp_path / "m.onnx", nodes, ["n", *SHAPE]), shape=SHAPE)
    assert (found.macs, found.parameters) == (AREA * 5, AREA * 5)


def test_a_shape_computed_in_the_graph_is_read_from_a_run(tmp_path: Path) -> None:
    """As PaddlePaddle writes it: the batch, cast to float and back, beside a constant."""
    nodes = [
        helper.make_node("Shape", ["input"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Cast", ["n"], ["nf"], to=TensorProto.FLOAT),
        helper.make_node("Ceil", ["nf"], ["nc"]),
        helper.make_node("Cast", ["nc"], ["ni"], to=TensorProto.INT64),
        helper.make_node("Concat", ["ni", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["input", "to"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"], "matmul"),
    ]
    model = graph(
        tmp_path / "m.onnx",
        nodes,
        ["n", *SHAPE],
        w=np.ones((AREA, 5), dtype=np.float32),
        zero=np.array([0]),
        rest=np.array([AREA]),
    )
    assert onnx_cost.cost(model, shape=SHAPE).layers == {"matmul": AREA * 5}


def test_a_file_that_is_no_onnx_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError) as caught:
        onnx_cost.cost(tmp_path / "m.onnx", shape=SHAPE)
    text = str(caught.value)
    assert text.startswith("the cost of m.onnx cannot be counted: got ")
    assert text.endswith(
        "; it is an ONNX that takes one image of [1, 8, 8]. Fix: check the file with onnx's "
        "`check-model`, and preprocess.size_px."
    )
