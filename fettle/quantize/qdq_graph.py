"""QDQ graph of an int8 ONNX, read and edited: dead channels, the bare answer, what became int8."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

from fettle.operator_shape import HEAVY

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Floats = npt.NDArray[np.float32]

BRANCHES = ("If", "Loop", "Scan", "SequenceMap")
# A channel whose weights stay under this share of its layer's largest adds less than float32's
# own rounding to the layer; the pretrained EfficientNet-Lite0 has 98 such channels.
DEAD = 1e-6
# 32 at once take a quarter longer where every tensor is looked at, 256 half as long again where
# only the answer is: EfficientNet-Lite0 and ResNet-20, 32 and 96 px.
BATCH_IMAGES = 8


class CoverageFacts(TypedDict):
    """Int8 coverage, as export's manifest says it: {operator: count}."""

    quantized_ops: dict[str, int]
    float_ops: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Int8 coverage: how many of the heavy operators run in int8, and which stay float: {operator:
    count}.
    """

    quantized: dict[str, int]
    left: dict[str, int]

    def facts(self) -> CoverageFacts:
        """Return what export's manifest says of it."""
        return {"quantized_ops": self.quantized, "float_ops": self.left}


def branches(proto: ModelProto) -> Counter[str]:
    """Count the operators that choose a path by the data they see."""
    return Counter(node.op_type for node in proto.graph.node if node.op_type in BRANCHES)


def revive_dead_channels(proto: ModelProto) -> None:
    """Set one weight of each dead output channel to DEAD times the layer's largest, others to 0."""
    from onnx import numpy_helper

    weights = {w.name: w for w in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in HEAVY or len(node.input) < 2 or node.input[1] not in weights:
            continue
        tensor = weights[node.input[1]]
        if tensor.data_type != tensor.FLOAT or len(tensor.dims) < 2:
            continue
        array = np.array(numpy_helper.to_array(tensor))
        channels = np.moveaxis(array, channel_axis(node, array.ndim), 0)
        sizes = np.abs(channels).reshape(len(channels), -1).max(axis=1)
        floor = max(float(sizes.max()) * DEAD, DEAD**2)  # a layer may be dead as a whole
        for channel in np.flatnonzero(sizes <= floor):
            channels[channel] = 0
            channels[channel].flat[0] = floor
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def channel_axis(node: NodeProto, rank: int) -> int:
    """Return the output-channel axis of a weight: [out, in, …], or the last of [in, out]."""
    if node.op_type == "Conv":
        return 0
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if transposed else rank - 1


def strip_output_pairs(proto: ModelProto) -> None:
    """Strip the Q/DQ pair before each graph output."""
    graph = proto.graph
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    for answer in graph.output:
        dequantize = makers[answer.name]
        quantize = makers.get(dequantize.input[0]) if dequantize.input else None
        if dequantize.op_type != "DequantizeLinear" or quantize is None:
            continue
        inner = quantize.input[0]
        lone = uses[inner] == uses[quantize.output[0]] == 1 and uses[answer.name] == 0
        if quantize.op_type != "QuantizeLinear" or inner not in makers or not lone:
            continue
        maker = makers[inner]
        maker.output[list(maker.output).index(inner)] = answer.name
        graph.node.remove(dequantize)
        graph.node.remove(quantize)


def int8_layers(proto: ModelProto) -> list[str]:
    """Name the heavy layers that run in int8."""
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in HEAVY
        and all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])
    ]


def operator_coverage(proto: ModelProto) -> Coverage:
    """Count the heavy operators whose inputs all come dequantized, and the others."""
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    quantized: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for node in proto.graph.node:
        if node.op_type in HEAVY:
            int8 = all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])
            (quantized if int8 else left)[node.op_type] += 1
    return Coverage(quantized=dict(sorted(quantized.items())), left=dict(sorted(left.items())))


def weight_coverage(heavy: Sequence[NodeProto], stored: Collection[str]) -> Coverage:
    """Count the heavy operators whose weight is among `stored`, and the others."""
    quantized = Counter(node.op_type for node in heavy if node.input[1] in stored)
    left = Counter(node.op_type for node in heavy if node.input[1] not in stored)
    return Coverage(quantized=dict(quantized), left=dict(left))


def input_name(proto: ModelProto) -> str:
    """Return the first input that is no initialiser: older files list their weights there too."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return str(next(i.name for i in proto.graph.input if i.name not in constants))


def fit_batch(proto: ModelProto, images: list[Floats]) -> list[Floats]:
    """Cut the images to the batch size that the graph fixes, or to one whose tensors stay small."""
    name = input_name(proto)
    dims = next(i for i in proto.graph.input if i.name == name).type.tensor_type.shape.dim
    fixed = dims[0].dim_value if dims else 0
    rows = np.concatenate(images)
    if fixed <= 0:
        return [rows[start : start + BATCH_IMAGES] for start in range(0, len(rows), BATCH_IMAGES)]
    return [rows[start : start + fixed] for start in range(0, len(rows) - fixed + 1, fixed)]


def operators(model: Path) -> str:
    """List the operators of a file, empty when it is no ONNX."""
    import onnx

    with contextlib.suppress(Exception):  # it may be no ONNX at all: then there are none to name
        proto = onnx.load(model)
        return ", ".join(sorted({node.op_type for node in proto.graph.node}))
    return ""
