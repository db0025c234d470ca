"""TFLite activations and what else computes element by element, of ONNX's.

Each keeps the order of axes that its inputs have in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .onnx_attributes import Untranslatable, attributes

if TYPE_CHECKING:
    from onnx import NodeProto

    from .tflite_layout import TfliteLayout

Translate = Callable[["TfliteLayout", "NodeProto"], None]
FUSED = schema.ActivationFunctionType
CLIPS = {
    (0.0, math.inf): FUSED.RELU,
    (0.0, 6.0): FUSED.RELU6,
    (-1.0, 1.0): FUSED.RELU_N1_TO_1,
}
ALONE = {FUSED.RELU: "RELU", FUSED.RELU6: "RELU6", FUSED.RELU_N1_TO_1: "RELU_N1_TO_1"}


def elementwise(code: str, options: str | None = None) -> Translate:
    """Return the translation of an operator that takes its inputs element by element."""

    def translate(layout: TfliteLayout, node: NodeProto) -> None:
        made = None if options is None else getattr(schema, options)()
        _emit(layout, node, code, list(node.input), made)

    return translate


def activation(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Relu and Clip: fused, alone, or as a minimum of a maximum."""
    low, high = 0.0, math.inf
    if node.op_type == "Clip":
        given = attributes(node)
        ends = [layout.constant(name) for name in node.input[1:]] + [None, None]
        low = float(given.get("min", -math.inf) if ends[0] is None else ends[0].reshape(-1)[0])
        high = float(given.get("max", math.inf) if ends[1] is None else ends[1].reshape(-1)[0])
    if low >= 0:
        layout.rectified(node.output[0])
    kind = CLIPS.get((low, high))
    if kind is not None and layout.fuse(node, kind):
        return
    if kind is not None:
        _emit(layout, node, ALONE[kind], [node.input[0]])
        return
    last = layout.is_last(node.input[0])
    tensor = layout.last(node.input[0]) if last else layout.plain(node.input[0])
    steps = [("MAXIMUM", low), ("MINIMUM", high)]
    steps = [(code, end) for code, end in steps if math.isfinite(end)]
    for index, (code, end) in enumerate(steps):
        other = layout.file.constant("end", np.array(end, np.float32))
        options = schema.MaximumMinimumOptionsT()
        if index == len(steps) - 1:
            layout.emit(code, (tensor, other), node.output[0], options, last=last)
        else:
            shape = layout.file.shape(tensor)
            tensor = layout.between(code, (tensor, other), tensor, shape, options)
    if not steps:
        layout.same(node)


def leaky(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate LeakyRelu."""
    options = schema.LeakyReluOptionsT()
    options.alpha = float(attributes(node).get("alpha", 0.01))
    _emit(layout, node, "LEAKY_RELU", list(node.input), options)


def gelu(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Gelu."""
    options = schema.GeluOptionsT()
    options.approximate = attributes(node).get("approximate", b"none") == b"tanh"
    _emit(layout, node, "GELU", list(node.input), options)


def elu(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Elu of alpha 1, the only one that TFLite has."""
    if attributes(node).get("alpha", 1.0) != 1.0:
        raise Untranslatable("an alpha other than 1")
    _emit(layout, node, "ELU", list(node.input))


def prelu(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate PRelu: its slope goes without the batch's axis."""
    slope = layout.constant(node.input[1])
    if slope is None or len(layout.shape(node.input[0])) != 4:
        raise Untranslatable("a slope that is computed, or another rank than four")
    whole = slope.reshape((1,) * (4 - slope.ndim) + slope.shape).transpose(0, 2, 3, 1)[0]
    inputs = (layout.last(node.input[0]), layout.file.constant(node.input[1], whole))
    layout.emit("PRELU", inputs, node.output[0], last=True)


def softmax(layout: TfliteLayout, node: NodeProto) -> None:
    """Translate Softmax and LogSoftmax over the last axis."""
    rank = len(layout.shape(node.input[0]))
    axis = int(attributes(node).get("axis", -1)) % rank
    last = rank == 4 and axis == 1
    if axis != rank - 1 and not last:
        raise Untranslatable(f"axis {axis} of {rank}")
    source = layout.last(node.input[0]) if last else layout.plain(node.input[0])
    if node.op_type == "LogSoftmax":
        options = schema.LogSoftmaxOptionsT()
        layout.emit("LOG_SOFTMAX", (source,), node.output[0], options, last=last)
        return
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    layout.emit("SOFTMAX", (source,), node.output[0], options, last=last)


def _emit(
    layout: TfliteLayout, node: NodeProto, code: str, names: list[str], options: object = None
) -> None:
    """Emit an operator on all its inputs, in the order of axes that they have."""
    computed = [name for name in names if layout.constant(name) is None]
    four = [name for name in computed if len(layout.shape(name)) == 4]
    last = layout.is_last(*four) and len(four) == len(computed)
    inputs = tuple(layout.last(name) if last else layout.plain(name) for name in names)
    layout.emit(code, inputs, node.output[0], options, last=last)
