"""Graph cleanup of an int8 ONNX: what no runtime needs is a fifth of a pruned network's file.

The digits model pruned to 0.25: 418,700 bytes, of which 249,000 are weights. Gone are biases in
int32 with their own scale and zero point (12 bytes a channel; bias_correction.py put float ones
there), zero points of weights (all zero, the operator's default), equal constants but one, and long
names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fettle.operator_shape import HEAVY

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def compact(proto: ModelProto) -> None:
    """Shrink the int8 `proto` in place."""
    _drop_zero_points(proto)
    _drop_unused(proto)
    _share_constants(proto)
    _shorten_names(proto)
    _strip(proto)


def _drop_zero_points(proto: ModelProto) -> None:
    """Leave out the weights' zero points where all are 0, but for Gemm.

    ONNX Runtime 1.32 makes QLinearConv without one, and leaves Gemm float.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    kinds = {name: node.op_type for node in proto.graph.node for name in node.input[1:2]}
    for node in proto.graph.node:
        of_weights = node.op_type == "DequantizeLinear" and node.input[0] in constants
        if not of_weights or len(node.input) < 3 or kinds.get(node.output[0]) != "Conv":
            continue
        if not numpy_helper.to_array(constants[node.input[2]]).any():
            node.input.pop()


def _drop_unused(proto: ModelProto) -> None:
    """Remove nodes whose answers nobody reads, then constants that nobody reads."""
    graph, wanted = proto.graph, {answer.name for answer in proto.graph.output}
    for node in reversed(list(graph.node)):  # sorted: readers come later
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
    for tensor in [t for t in graph.initializer if t.name not in wanted]:
        graph.initializer.remove(tensor)


def _share_constants(proto: ModelProto) -> None:
    """Keep one of the constants that are equal in type, shape and bytes."""
    from onnx import numpy_helper

    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    for tensor in list(proto.graph.initializer):
        array = np.asarray(numpy_helper.to_array(tensor))
        key = (str(array.dtype), array.shape, array.tobytes())
        renamed[tensor.name] = first.setdefault(key, tensor.name)
        if renamed[tensor.name] != tensor.name:
            proto.graph.initializer.remove(tensor)
    for node in proto.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _shorten_names(proto: ModelProto) -> None:
    """Rename every tensor to a number but the graph's own inputs and outputs."""
    graph = proto.graph
    kept = {value.name for value in (*graph.input, *graph.output)}
    short = {name: name for name in (*kept, "")}
    inside = [t.name for t in graph.initializer] + [o for n in graph.node for o in n.output]
    count = 0
    for name in inside:
        while name not in short:
            candidate, count = _number(count), count + 1
            if candidate not in kept:
                short[name] = candidate
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        node.input[:] = [short[name] for name in node.input]
        node.output[:] = [short[name] for name in node.output]
        if node.op_type not in HEAVY:
            node.ClearField("name")


def _number(value: int) -> str:
    """Write a number in base 36."""
    digits = ""
    while True:
        value, last = divmod(value, len(DIGITS))
        digits = DIGITS[last] + digits
        if value == 0:
            return digits


def _strip(proto: ModelProto) -> None:
    """Drop what only describes how the file was made."""
    proto.ClearField("doc_string")
    del proto.metadata_props[:]
    del proto.graph.value_info[:]  # inferred shapes: a runtime infers them again
    for node in proto.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
        for given in [a for a in node.attribute if _is_default(node, a)]:
            node.attribute.remove(given)


def _is_default(node: NodeProto, attribute: AttributeProto) -> bool:
    """Tell whether ONNX's definition of Conv says the same when the attribute is absent."""
    if node.op_type != "Conv":
        return False
    values = set(attribute.ints)
    match attribute.name:
        case "strides" | "dilations":
            return values <= {1}
        case "pads":
            return values <= {0}
        case "group":
            return bool(attribute.i == 1)
        case "auto_pad":
            return bool(attribute.s == b"NOTSET")
        case name:
            return bool(name == "kernel_shape")  # read off the weight
