from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fettle.hardware.runtimes import ort
from fettle.quantize import float_fallback, float_fallback_rewrite, qdq_graph, static_int8

SIZE_PX, WIDTH = 8, 16
rng = np.random.default_rng(5)
IMAGES = rng.normal(size=(96, 8, SIZE_PX, SIZE_PX)).astype(np.float32)


def network(path: Path, *, seed: int) -> Path:
    """Write convolutions, Relus, Adds, Concats and pools, joined at random; none is idle."""
    dice = np.random.default_rng(seed)
    nodes: list[onnx.NodeProto] = []
    held: list[onnx.TensorProto] = []
    ends: list[tuple[str, int]] = []  # tensors of one map size, and their channels

    def add(kind: str, inputs: list[str], **given: object) -> str:
        name = f"{kind.lower()}{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], name, **given))
        return nodes[-1].output[0]

    def conv(source: str, inside: int) -> str:
        kernel = int(dice.choice([1, 3]))
        weight = dice.normal(size=(WIDTH, inside, kernel, kernel)) / np.sqrt(inside) / kernel
        at = len(held)
        held.append(numpy_helper.from_array(weight.astype(np.float32), f"w{at}"))
        bias = dice.normal(scale=0.1, size=WIDTH).astype(np.float32)
        held.append(numpy_helper.from_array(bias, f"b{at}"))
        made = add("Conv", [source, f"w{at}", f"b{at}"], pads=[kernel // 2] * 4)
        return add("Relu", [made]) if dice.random() < 0.6 else made

    ends.append((conv("input", 8), WIDTH))
    for _ in range(7):
        source, channels = ends[int(dice.integers(len(ends)))]
        kind = str(dice.choice(["Conv", "Conv", "Conv", "Add", "Concat", "MaxPool"]))
        other, others = ends[int(dice.integers(len(ends)))]
        if kind == "Add" and other != source and channels == others:
            ends.append((add("Add", [source, other]), channels))
        elif kind == "Concat" and other != source:
            ends.append((add("Concat", [source, other], axis=1), channels + others))
        elif kind == "MaxPool":
            pooled = add("MaxPool", [source], kernel_shape=[3, 3], pads=[1] * 4)
            ends.append((pooled, channels))
        else:
            ends.append((conv(source, channels), WIDTH))
    read = {name for node in nodes for name in node.input}
    loose = [(name, channels) for name, channels in ends if name not in read]
    joined = loose[0][0]
    if len(loose) > 1:
        joined = add("Concat", [name for name, _ in loose], axis=1)
    last = conv(joined, sum(channels for _, channels in loose))
    flat = add("Flatten", [add("GlobalAveragePool", [last])])
    held.append(numpy_helper.from_array(dice.normal(size=(WIDTH, 4)).astype(np.float32), "g"))
    held.append(numpy_helper.from_array(np.zeros(4, np.float32), "gb"))
    nodes.append(helper.make_node("Gemm", [flat, "g", "gb"], ["logits"], "gemm"))
    value = helper.make_tensor_value_info
    shape = ["batch", 8, SIZE_PX, SIZE_PX]
    graph = helper.make_graph(
        nodes,
        "network",
        [value("input", TensorProto.FLOAT, shape)],
        [value("logits", TensorProto.FLOAT, ["batch", 4])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def draft(folder: Path, seed: int) -> static_int8.Int8Draft:
    model = network(folder / "model.onnx", seed=seed)
    return static_int8.drafts(model, batches=[IMAGES[:48]], methods=["minmax"])["minmax"]


def optimised(path: Path) -> Counter[str]:
    """Count the operators that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimised"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    proto = onnx.load(options.optimized_model_filepath)
    return Counter(node.op_type for node in proto.graph.node)


@pytest.mark.parametrize("seed", range(12))
def test_any_layers_may_go_back_to_float_and_the_others_stay_int8(
    tmp_path: Path, seed: int
) -> None:
    made, dice = draft(tmp_path, seed), np.random.default_rng(seed)
    layers = qdq_graph.int8_layers(made.quantized)
    wanted = float_fallback.run(made.prepared, IMAGES)
    int8_error = ((float_fallback.run(made.quantized, IMAGES) - wanted) ** 2).mean()
    for share in (0.2, 0.5, 0.8):
        names = [name for name in layers if dice.random() < share and name != layers[-2]]
        out = tmp_path / f"{share}.onnx"
        coverage = static_int8.finish(made, out, keep_float=names)
        proto = onnx.load(out)
        onnx.checker.check_model(proto, full_check=True)
        assert sum(coverage.left.values()) == len(names)
        # the runtime keeps exactly the others in int8: none lost, none rounded that was sent back
        kinds = optimised(out)
        convolutions = [name for name in layers if name not in names and name != "gemm"]
        assert kinds["QLinearConv"] == len(convolutions), (names, kinds)
        assert kinds["QGemm"] == ("gemm" not in names)
        assert not rounded_twice(proto)
        error = ((ort.open(out, threads=1).run(IMAGES) - wanted) ** 2).mean()
        assert error < 2 * int8_error


def rounded_twice(proto: onnx.ModelProto) -> list[str]:
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear" and makers.get(node.input[0]) == "DequantizeLinear"
    ]


def test_all_layers_float_leave_no_rounding_at_all(tmp_path: Path) -> None:
    made = draft(tmp_path, 3)
    proto = float_fallback_rewrite.reverted(
        made.quantized, made.prepared, qdq_graph.int8_layers(made.quantized)
    )
    found, wanted = float_fallback.run(proto, IMAGES), float_fallback.run(made.prepared, IMAGES)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def residual(path: Path) -> Path:
    """Write stem, a block of two convolutions around which a residual runs, and a last one."""
    dice = np.random.default_rng(0)
    held = [
        numpy_helper.from_array(dice.normal(size=(WIDTH, 8, 3, 3)).astype(np.float32), "w0"),
        *(
            numpy_helper.from_array(dice.normal(size=(WIDTH, WIDTH, 3, 3)).astype(np.float32), w)
            for w in ("w1", "w2", "w3")
        ),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "w0"], ["c0"], "stem", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], "relu0"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "second", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r0"], ["sum"], "add"),
        helper.make_node("Relu", ["sum"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], "last", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c3"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["logits"], "flat"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "residual",
        [value("input", TensorProto.FLOAT, ["batch", 8, SIZE_PX, SIZE_PX])],
        [value("logits", TensorProto.FLOAT, ["batch", WIDTH])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("names", "int8_adds"),
    [
        (["stem"], 1),  # "first" needs the residual's pair anyway
        (["first"], 1),  # a float layer between two pairs, with all others in int8
        (["second"], 0),  # its answer would be rounded for the Add alone
        (["last"], 0),  # nobody wants the Add's answer rounded
    ],
)
def test_a_residual_stays_int8_only_where_that_pays(
    tmp_path: Path, names: list[str], int8_adds: int
) -> None:
    model = residual(tmp_path / "model.onnx")
    made = static_int8.drafts(model, batches=[IMAGES[:48]], methods=["minmax"])["minmax"]
    out = tmp_path / "mixed.onnx"
    static_int8.finish(made, out, keep_float=names)
    kinds = optimised(out)
    assert (kinds["QLinearConv"], kinds["QLinearAdd"]) == (3, int8_adds)


def test_a_float_layer_gets_the_relu_back_that_a_range_replaced(tmp_path: Path) -> None:
    model = residual(tmp_path / "model.onnx")
    made = static_int8.drafts(model, batches=[IMAGES[:48]], methods=["minmax"])["minmax"]
    assert "Relu" not in {node.op_type for node in made.quantized.graph.node}
    proto = float_fallback_rewrite.reverted(made.quantized, made.prepared, ["first", "second"])
    onnx.checker.check_model(proto, full_check=True)
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    reads = {n.name: makers.get(n.input[0]) for n in proto.graph.node if n.op_type == "Conv"}
    # "first" stands behind the int8 stem and reads what its pair gives, cut off already
    assert (reads["first"], reads["second"]) == ("DequantizeLinear", "Relu")
