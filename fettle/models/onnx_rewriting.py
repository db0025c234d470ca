"""ONNX graph rewriting that keeps the answers: shapes, names, opset, order of outputs.

Each function takes a ModelProto and either returns a changed copy or, where it returns None,
changes it in place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Floats = npt.NDArray[np.float32]

INPUT, OUTPUT = "input", "logits"
CONTROL_FLOW = ("If", "Loop", "Scan")
OPSET_MIN = 13  # below it int8 weights cannot be scaled per channel


def fix_shape(proto: ModelProto, *, channels: int, size_px: int, batch: str | int) -> ModelProto:
    """Return a copy for [batch, C, S, S]; a text is a free batch of that name.

    Shapes noted inside the graph go: they may say another batch or side.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    shape = copy.graph.input[0].type.tensor_type.shape
    for dim, value in zip(shape.dim, (batch, channels, size_px, size_px), strict=True):
        dim.Clear()
        if isinstance(value, str):
            dim.dim_param = value
        else:
            dim.dim_value = value
    del copy.graph.value_info[:]
    copy.graph.output[0].type.tensor_type.ClearField("shape")
    return copy


def declare_output(proto: ModelProto, *, classes: int) -> None:
    """State the output's shape: [the input's batch, classes]."""
    import onnx

    first = proto.graph.input[0].type.tensor_type.shape.dim[0]
    batch = first.dim_param or first.dim_value
    whole = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [batch, classes])
    proto.graph.output[0].type.CopyFrom(whole)


def control_flow(proto: ModelProto) -> list[str]:
    """List the kinds of control flow in the graph, inner graphs too, sorted."""
    return sorted({node.op_type for node in _nodes(proto.graph) if node.op_type in CONTROL_FLOW})


def fold_constants(proto: ModelProto) -> ModelProto:
    """Let ONNX Runtime compute what is constant now that the size is fixed; standard operators.

    Branches on the image's size (an If over a Shape) go this way. What it cannot load comes back
    as it was.
    """
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        try:
            ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except _foreign():
            return proto
        return onnx.load(target)


def rename(proto: ModelProto) -> None:
    """Name the input and the output, everywhere in the graph; an inner namesake gives way."""
    graph = proto.graph
    names = {graph.input[0].name: INPUT, graph.output[0].name: OUTPUT}
    used = {name for node in _nodes(graph) for name in (*node.input, *node.output)}
    used |= {value.name for value in graph.initializer}
    for taken in (INPUT, OUTPUT):
        if taken in used and taken not in names:
            names[taken] = next(
                f"{taken}_{number}"
                for number in range(len(used) + 1)
                if f"{taken}_{number}" not in used
            )
    for node in _nodes(graph):
        for part in (node.input, node.output):
            for index, name in enumerate(part):
                part[index] = names.get(name, name)
    for inner in _graphs(graph):
        for value in (*inner.initializer, *inner.value_info, *inner.input, *inner.output):
            value.name = names.get(value.name, value.name)


def raise_opset(proto: ModelProto) -> ModelProto:
    """Convert to OPSET_MIN when older; kept as it is where ONNX's converter cannot."""
    import onnx

    opset = next(opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx"))
    if opset >= OPSET_MIN:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OPSET_MIN)
    except (RuntimeError, onnx.version_converter.ConvertError):
        return proto


def flatten_output(proto: ModelProto) -> None:
    """Flatten an answer [batch, classes, 1, 1] to [batch, classes]."""
    import onnx

    _append(proto, lambda inner: onnx.helper.make_node("Flatten", [inner], [OUTPUT], axis=1))


def reorder_output(proto: ModelProto, order: list[int]) -> None:
    """Put output `order[k]` at place k."""
    import onnx

    index = onnx.numpy_helper.from_array(np.asarray(order, dtype=np.int64), "class_order")
    proto.graph.initializer.append(index)
    _append(
        proto,
        lambda inner: onnx.helper.make_node("Gather", [inner, "class_order"], [OUTPUT], axis=1),
    )


def parameters(proto: ModelProto) -> int:
    """Count the floating-point weights, wherever they are stored: initialisers and constants."""
    import onnx

    tensors = [tensor for graph in _graphs(proto.graph) for tensor in graph.initializer]
    for node in _nodes(proto.graph):
        if node.op_type == "Constant":
            tensors += [attribute.t for attribute in node.attribute if attribute.name == "value"]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return sum(int(np.prod(tensor.dims)) for tensor in tensors if tensor.data_type in floats)


def run_model(proto: ModelProto, batch: Floats) -> Floats | None:
    """Run a graph in memory on [n, C, S, S]; None when ONNX Runtime cannot run it on this batch."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # what it would warn of comes out as None
    try:
        session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        answer: Floats = session.run(None, {session.get_inputs()[0].name: batch})[0]
    except _foreign():
        return None
    return answer


def strip(proto: ModelProto) -> None:
    """Drop doc strings and notes, which may hold paths and clocks of another machine."""
    proto.doc_string = ""
    proto.graph.doc_string = ""
    del proto.metadata_props[:]
    parts = (*_nodes(proto.graph), *proto.graph.initializer, *proto.graph.value_info)
    for part in (*parts, *proto.graph.input, *proto.graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def _foreign() -> tuple[type[Exception], ...]:
    """Name what ONNX Runtime raises for a graph or a batch it cannot run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.NotImplemented,
        state.RuntimeException,
    )


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    for inner in _graphs(graph):
        yield from inner.node


def _append(proto: ModelProto, make: Callable[[str], NodeProto]) -> None:
    """Put `make(name of what was the output)` at the end; the output's shape is inferred anew."""
    inner = f"{OUTPUT}_{len(proto.graph.node)}"
    for node in proto.graph.node:
        for index, name in enumerate(node.output):
            node.output[index] = inner if name == OUTPUT else name
        for position, name in enumerate(node.input):
            node.input[position] = inner if name == OUTPUT else name
    proto.graph.node.append(make(inner))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
