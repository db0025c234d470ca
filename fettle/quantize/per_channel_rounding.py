"""Per-channel weight rounding of convolutions to int8, all channels at once.

ONNX Runtime's quantizer does the same in Python, a channel at a time, and their biases too: most of
its time for EfficientNet-Lite0 (20,000 channels). So it is told to take these weights as a whole
(`of_convolutions`), and what it wrote for them is replaced here. Gemm and MatMul stay its own.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.quantize import weight_only

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# The largest whole number that a weight of so many bits takes: ONNX Runtime's choice.
LARGEST = {7: 64, 8: 127}
# A runtime holds the bias in int32, in steps of the input's times the weight's.
BIAS_LARGEST = (2**31 - 1) / 1.0001


def round_convolutions(prepared: ModelProto) -> list[str]:
    """Name the float weights that are read by convolutions, as weights, and by nothing else."""
    constants = {
        tensor.name for tensor in prepared.graph.initializer if tensor.data_type == tensor.FLOAT
    }
    reads = [
        (name, node.op_type == "Conv" and index == 1)
        for node in prepared.graph.node
        for index, name in enumerate(node.input)
    ]
    others = {name for name, as_weight in reads if not as_weight}
    return sorted(constants.intersection(name for name, _ in reads) - others)


def quantize(proto: ModelProto, *, prepared: ModelProto, names: Collection[str], bits: int) -> None:
    """Round the weights in `names` (of `round_convolutions`) that the int8 `proto` holds, in place.

    A channel's step is its largest weight over 127 (7 bits: 64), or what its bias needs to fit.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    floats = {
        tensor.name: np.asarray(numpy_helper.to_array(tensor))
        for tensor in prepared.graph.initializer
    }
    sources = {node.name: list(node.input) for node in prepared.graph.node}
    ends: dict[str, NodeProto] = {}  # what dequantizes each weight
    steps_min: dict[str, npt.NDArray[np.float64]] = {}
    for node in proto.graph.node:
        source = sources.get(node.name, [])
        if len(source) < 2 or source[1] not in names or node.input[1] not in makers:
            continue
        ends[source[1]] = makers[node.input[1]]
        entry = makers.get(node.input[0])
        if len(source) > 2 and source[2] in floats and entry is not None and len(entry.input) > 1:
            step = numpy_helper.to_array(constants[entry.input[1]]).astype(np.float64)
            least = np.abs(floats[source[2]]) / (BIAS_LARGEST * step)
            steps_min[source[1]] = np.maximum(least, steps_min.get(source[1], 0.0))
    for name, end in ends.items():
        values, steps = weight_only.quantize(
            floats[name], 0, largest=LARGEST[bits], steps_min=steps_min.get(name, 0.0)
        )
        parts: list[npt.NDArray[np.int8 | np.float32]]
        parts = [values, steps, np.zeros(len(steps), np.int8)]
        for part, array in zip(end.input, parts, strict=True):
            constants[part].CopyFrom(numpy_helper.from_array(array, part))
        end.attribute.append(helper.make_attribute("axis", 0))
