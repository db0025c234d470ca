"""Weight floor: no output channel's weights so small that its bias has no int32 at their scale.

An int8 layer's bias is a 32-bit integer in steps of the input's scale times the channel's. One
channel of zeros has the scale 0, and loses its bias, which is all that it answers;
EfficientNet-Lite0 as pretrained has 98 such channels. One of their weights is raised to the floor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

if TYPE_CHECKING:
    from onnx import ModelProto

# Adds 1e-5 of the layer's largest weight times an activation: under a hundredth of an int8 step.
SHARE = 1e-5
# A bias of 1 is 2**30 steps of an input's scale of 1e-3 times this floor by 127.
OF_BIAS = 127 / (2**30 * 1e-3)


def raise_weights(proto: ModelProto) -> None:
    """Raise the largest weight of each channel below the floor to it, in place."""
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        names = list(node.input)
        if node.op_type not in ("Conv", "Gemm") or names[1] not in constants:
            continue
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        weights = np.array(numpy_helper.to_array(constants[names[1]]))
        rows = weights if node.op_type == "Conv" or transposed else weights.T
        biases = np.zeros(len(rows))
        if len(names) > 2 and names[2] in constants:
            biases = np.resize(numpy_helper.to_array(constants[names[2]]), len(rows))
        floors = np.maximum(np.abs(weights).max() * SHARE, np.abs(biases) * OF_BIAS)
        for row, floor in zip(rows, floors, strict=True):
            place = np.unravel_index(np.abs(row).argmax(), row.shape)
            if abs(row[place]) < floor:
                row[place] = np.copysign(floor, row[place])
        constants[names[1]].CopyFrom(numpy_helper.from_array(weights, names[1]))
