"""ONNX width scaling: copies with other channel counts, to time real kernels in their places.

A clone keeps the graph and takes the first so many channels of every tensor: the count a width
becomes depends on the width alone, so that tensors which are added stay alike. That holds for a
float file and for its QDQ form. Weights lose their meaning; shapes, layouts and fusions stay.

Every node and tensor is named after the operator it serves ("op7_…"), and runtimes keep names
through their fusions: so each kernel of a profile finds its operator again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.operator_shape import Kind, Operator

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Floats = npt.NDArray[np.float32]

KINDS: Mapping[str, Kind] = {"Conv": "conv", "Gemm": "gemm", "MatMul": "gemm"}
POOLS = ("ReduceMean", "GlobalAveragePool", "AveragePool", "MaxPool")
SHAPE_CONSTANT_MAX = 8  # longer int64 constants are indices, not shapes
NAMED = re.compile(r"op(\d+)_")


def widths(operators: Sequence[Operator]) -> list[int]:
    """List the channel counts that may change: those of convolutions and linear layers inside.

    What enters the net, and what leaves it, stays. Empty when a convolution has groups other than
    one a channel: then no width may change by itself.
    """
    heavy = [operator for operator in operators if operator.kind in ("conv", "gemm")]
    if not heavy or any(1 < operator.groups != operator.inputs for operator in heavy):
        return []
    kept = {heavy[0].inputs, heavy[-1].outputs}
    return sorted({operator.outputs for operator in heavy} - kept)


def scale_widths(proto: ModelProto, becomes: Mapping[int, int]) -> ModelProto:
    """Copy a graph with each width w of `becomes` cut to becomes[w], and its batch fixed at 1."""
    import onnx
    from onnx import numpy_helper

    scaled = onnx.ModelProto()
    scaled.CopyFrom(proto)
    del scaled.graph.value_info[:]
    for tensor in scaled.graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    for answer in scaled.graph.output:
        answer.type.tensor_type.shape.dim[0].dim_value = 1
    for tensor in scaled.graph.initializer:
        array = numpy_helper.to_array(tensor)
        cut = array[tuple(slice(0, becomes.get(size, size)) for size in array.shape)]
        if cut.dtype == np.int64 and cut.size <= SHAPE_CONSTANT_MAX:
            cut = np.vectorize(lambda v: becomes.get(int(v), int(v)), otypes=[np.int64])(cut)
        tensor.CopyFrom(numpy_helper.from_array(np.array(cut, order="C"), tensor.name))
    for node in scaled.graph.node:
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = becomes.get(attribute.i, attribute.i)
    return scaled


def is_runnable(proto: ModelProto, batch: Floats) -> bool:
    """Tell whether a scaled copy still is a network: not every graph lets its widths change."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # a failure is an answer here, not an error
    try:
        session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {session.get_inputs()[0].name: batch})
    except Exception:  # ONNX Runtime's errors share no base
        return False
    return True


def operators(proto: ModelProto) -> list[Operator]:
    """List the operators of a graph by node name, batch 1; of a QDQ form, as if it were float."""
    return [operator for _, operator in _listed(proto)]


def name_after_operators(proto: ModelProto) -> list[Operator]:
    """Rename nodes and tensors in place after the operator they serve; return the operators."""
    listed = _listed(proto)
    places = {place: index for index, (place, _) in enumerate(listed)}
    graph = proto.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    kept |= {tensor.name for tensor in graph.initializer}
    owner: dict[str, int] = {}
    renamed: dict[str, str] = {}
    for count, node in enumerate(graph.node):
        position = places.get(count, next((owner[n] for n in node.input if n in owner), None))
        for slot, name in enumerate(node.input):
            node.input[slot] = renamed.get(name, name)
        if position is None:
            node.name = f"glue{count}_"
            continue
        node.name = f"op{position}_{count}"
        for slot, name in enumerate(node.output):
            renamed[name] = name if name in kept else f"op{position}_{count}_{slot}"
            owner[renamed[name]] = owner[name] = position
            node.output[slot] = renamed[name]
    return [operator for _, operator in listed]


def operator_of(kernel: str) -> int | None:
    """Tell which operator a profiled kernel serves, None for glue."""
    named = NAMED.search(kernel)
    return int(named[1]) if named else None


def _listed(proto: ModelProto) -> list[tuple[int, Operator]]:
    """Find the operators and their places among the nodes."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    }
    constants = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    listed = []
    for place, node in enumerate(proto.graph.node):
        operator = _operator(node, shapes, constants, makers)
        if operator is not None:
            listed.append((place, operator))
    return listed


def _operator(
    node: NodeProto,
    shapes: Mapping[str, list[int]],
    constants: Mapping[str, list[int]],
    makers: Mapping[str, NodeProto],
) -> Operator | None:
    answer = shapes.get(node.output[0], [])
    if node.op_type in KINDS:
        weight = _constant(node.input[1], constants, makers)
        if weight is None:
            return None
        if node.op_type == "Conv" and len(weight) == 4 and len(answer) == 4:
            groups = _integers(node, "group", 1)[0]
            return Operator(
                name=node.name, kind="conv", inputs=weight[1] * groups, outputs=weight[0],
                height=answer[2], width=answer[3], kernel=(weight[2], weight[3]),
                stride=_integers(node, "strides", 1)[0], groups=groups,
            )  # fmt: skip
        if len(weight) != 2:
            return None
        rows = bool(_integers(node, "transB", 0)[0])
        outputs, inputs = weight if rows else (weight[1], weight[0])
        return Operator(name=node.name, kind="gemm", inputs=inputs, outputs=outputs)
    source = shapes.get(node.input[0], []) if node.input else []
    if len(source) != 4 or not (node.op_type == "Add" or node.op_type in POOLS):
        return None
    height, width = (answer[2], answer[3]) if len(answer) == 4 else (1, 1)
    if node.op_type == "Add":
        inner = shapes.get(node.input[1], [])
        if len(inner) != 4 or any(name in constants for name in node.input):
            return None
        return Operator(
            name=node.name, kind="add", inputs=source[1], outputs=source[1],
            height=height, width=width,
        )  # fmt: skip
    kernel = (max(1, source[2] // height), max(1, source[3] // width))
    return Operator(
        name=node.name, kind="pool", inputs=source[1], outputs=source[1], height=height,
        width=width, kernel=kernel, stride=kernel[0],
    )  # fmt: skip


def _constant(
    name: str, constants: Mapping[str, list[int]], makers: Mapping[str, NodeProto]
) -> list[int] | None:
    """Return the shape of a weight, through its DequantizeLinear if it has one."""
    if name in constants:
        return constants[name]
    maker = makers.get(name)
    if maker is not None and maker.op_type in ("DequantizeLinear", "QuantizeLinear"):
        return _constant(maker.input[0], constants, makers)
    return None


def _integers(node: NodeProto, name: str, default: int) -> list[int]:
    """Read an attribute of one or several integers; [default] where the node has none."""
    attribute = next((a for a in node.attribute if a.name == name), None)
    return [default] if attribute is None else list(attribute.ints) or [attribute.i]
