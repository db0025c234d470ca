from __future__ import annotations

from pathlib import Path

import int8_file
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.hardware.runtimes import ort
from fettle.quantize import operator_placement

SIZE_PX = 12


def network(path: Path, *, residual: bool, keepdims: int = 1, dense: bool = False) -> Path:
    """Write stem 3x3 (9 products), depthwise 3x3, project 1x1, mean over the map, Gemm."""
    rng = np.random.default_rng(0)
    inside = 16 if dense else 1

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)

    def relu(source: str) -> onnx.NodeProto:
        return helper.make_node("Relu", [source], [f"{source}_relu"])

    start = "dw_relu"
    nodes = [
        helper.make_node("Conv", ["input", "w0"], ["stem"], "stem", pads=[1] * 4),
        relu("stem"),
        helper.make_node(
            "Conv", ["stem_relu", "w1"], ["dw"], "dw", pads=[1] * 4, group=16 // inside
        ),
        relu("dw"),
    ]
    if residual:
        nodes.append(helper.make_node("Add", ["dw_relu", "stem_relu"], ["sum"]))
        start = "sum"
    nodes += [
        helper.make_node("Conv", [start, "w2"], ["project"], "project"),
        helper.make_node("ReduceMean", ["project", "axes"], ["mean"], keepdims=keepdims),
        helper.make_node("Reshape", ["mean", "flat"], ["row"]),
        helper.make_node("Gemm", ["row", "w3"], ["logits"], "classifier"),
    ]
    held = [weight("w0", 16, 1, 3, 3), weight("w1", 16, inside, 3, 3), weight("w2", 8, 16, 1, 1)]
    held += [
        weight("w3", 8, 4),
        numpy_helper.from_array(np.array([-1, -2]), "axes"),
        numpy_helper.from_array(np.array([-1, 8]), "flat"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [value("input", TensorProto.FLOAT, ["batch", 1, SIZE_PX, SIZE_PX])],
        [value("logits", TensorProto.FLOAT, ["batch", 4])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def images(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 1, SIZE_PX, SIZE_PX)).astype(np.float32)


def test_the_small_convolutions_at_the_image_stay_float(tmp_path: Path) -> None:
    proto = onnx.load(network(tmp_path / "model.onnx", residual=False))
    assert operator_placement.float_head(proto) == ["stem", "dw"]


def test_a_convolution_of_many_products_ends_the_float_head(tmp_path: Path) -> None:
    proto = onnx.load(network(tmp_path / "model.onnx", residual=False, dense=True))
    assert operator_placement.float_head(proto) == ["stem"]


def test_there_is_no_float_head_where_a_residual_begins(tmp_path: Path) -> None:
    proto = onnx.load(network(tmp_path / "model.onnx", residual=True))
    assert operator_placement.float_head(proto) == []


@pytest.mark.parametrize(("keepdims", "wanted"), [(1, "GlobalAveragePool"), (0, "ReduceMean")])
def test_a_mean_over_the_map_is_written_as_a_pooling(
    tmp_path: Path, keepdims: int, wanted: str
) -> None:
    path = network(tmp_path / "model.onnx", residual=False, keepdims=keepdims)
    before = ort.open(path, threads=1).run(images(5))
    proto = onnx.load(path)
    operator_placement.pool_whole_maps(proto)
    onnx.save(proto, path)
    assert wanted in {node.op_type for node in proto.graph.node}
    assert ort.open(path, threads=1).run(images(5)) == pytest.approx(before, abs=1e-5)


def test_onnx_runtime_fuses_all_that_is_not_at_the_image(tmp_path: Path) -> None:
    """Read off the graph that ONNX Runtime really runs."""
    out = tmp_path / "int8.onnx"
    model = network(tmp_path / "model.onnx", residual=False)
    int8_file.write(model, out, batches=[images(32)], calibrate="minmax")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "run.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    heavy = ("Conv", "FusedConv", "QLinearConv", "QGemm", "Gemm", "QLinearGlobalAveragePool")
    found = {kind: kinds.count(kind) for kind in heavy if kind in kinds}
    assert found == {"Conv": 2, "QLinearConv": 1, "QLinearGlobalAveragePool": 1, "QGemm": 1}
    assert kinds.count("QuantizeLinear") == 1
    assert "DequantizeLinear" not in kinds


def test_nodes_without_a_name_of_their_own_get_one(tmp_path: Path) -> None:
    proto = onnx.load(network(tmp_path / "model.onnx", residual=False))
    proto.graph.node[0].name = proto.graph.node[2].name = "same"
    proto.graph.node[4].name = ""
    operator_placement.name_nodes(proto)
    names = [node.name for node in proto.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
