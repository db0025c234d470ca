"""ONNX cost of a file: parameters, and multiply-accumulates for one image.

A parameter is an element of any initialiser or constant, scales and zero points of int8 included:
what the file carries, not what one would like to count. MACs are those of Conv, Gemm and MatMul (in
int8 too); the rest of a network is rounding beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fettle.errors import ModelError
from fettle.operator_shape import HEAVY

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Shapes = dict[str, list[int]]
COUNTED = (*HEAVY, "MatMulInteger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """`parameters` of the file; `macs` for one image; `layers` {node name: macs}, largest first."""

    parameters: int
    macs: int
    layers: dict[str, int]


def cost(model: Path, *, shape: tuple[int, int, int]) -> Cost:
    """Count a file that takes one image of `shape` [C, H, W].

    Raises ModelError when the file is no ONNX, or does not take that shape.
    """
    import onnx

    try:
        proto = onnx.load(model)
        heavy = [node for node in proto.graph.node if node.op_type in COUNTED]
        shapes = _shapes(proto, shape)
        wanted = {name for node in heavy for name in (*node.input[:2], node.output[0])}
        missing = sorted(name for name in wanted if 0 in shapes.get(name, [0]))
        if missing:
            shapes |= _observed(proto, missing, shape)
    except Exception as err:  # protobuf's, ONNX's and ONNX Runtime's errors share no base
        raise ModelError(
            f"the cost of {model.name} cannot be counted",
            got=(str(err).strip().splitlines() or [type(err).__name__])[0][:300],
            rule=f"it is an ONNX that takes one image of {list(shape)}",
            fix="check the file with onnx's `check-model`, and preprocess.size_px",
        ) from err
    layers = {node.name or node.output[0]: _macs(node, shapes) for node in heavy}
    ranked = dict(sorted(layers.items(), key=lambda item: (-item[1], item[0])))
    return Cost(
        parameters=sum(math.prod(tensor.dims) for tensor in _constants(proto)),
        macs=sum(layers.values()),
        layers=ranked,
    )


def _constants(proto: ModelProto) -> list[TensorProto]:
    """List the tensors a file carries; PaddlePaddle keeps its weights in Constant nodes."""
    nodes = [node for node in proto.graph.node if node.op_type == "Constant"]
    return [
        *proto.graph.initializer,
        *(a.t for node in nodes for a in node.attribute if a.name == "value"),
    ]


def _shapes(proto: ModelProto, shape: tuple[int, int, int]) -> Shapes:
    """Infer every tensor's shape with the input fixed at one image; initialisers included."""
    import onnx

    constants = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    source = next(i for i in proto.graph.input if i.name not in constants)
    dims = source.type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, *shape), strict=True):
        dim.dim_value = size
    del proto.graph.value_info[:]  # they name the free batch
    for tensor in proto.graph.output:
        tensor.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    shapes = {
        tensor.name: [d.dim_value for d in tensor.type.tensor_type.shape.dim]
        for tensor in (*graph.value_info, *graph.input, *graph.output)
        if tensor.type.tensor_type.HasField("shape")
    }
    return {**shapes, **constants}


def _observed(
    proto: ModelProto,
    names: list[str],
    shape: tuple[int, int, int],
) -> Shapes:
    """Run one blank image and read the shapes that inference could not follow.

    PaddlePaddle computes the shape of its last Reshape in the graph, for one.
    """
    import numpy as np
    import onnx
    import onnxruntime as ort

    del proto.graph.output[:]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    blank = {session.get_inputs()[0].name: np.zeros((1, *shape), np.float32)}
    return {
        name: list(value.shape)
        for name, value in zip(names, session.run(names, blank), strict=True)
    }


def _macs(node: NodeProto, shapes: Shapes) -> int:
    weight, answer = shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":  # [out, in / groups, kh, kw]: each output value takes in x kh x kw
        return math.prod(answer) * math.prod(weight[1:])
    if node.op_type.startswith("MatMul"):
        return math.prod(answer) * shapes[node.input[0]][-1]
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return math.prod(answer) * (weight[1] if transposed else weight[0])
