"""Float bias: what an int8 convolution adds, in float, instead of int32 with a scale a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.quantize import qdq_graph

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

Floats = npt.NDArray[np.float32]


def float_biases(proto: ModelProto, prepared: ModelProto) -> None:
    """Give each convolution a float bias of its own: the float graph's, or zeros.

    The quantizer's are int32 with a scale and a zero point, 12 bytes a channel. ONNX Runtime
    quantizes a float one itself when it loads the file, OpenVINO adds it in float. Gemm keeps its
    int32: with a float bias ONNX Runtime 1.32 leaves it float.
    """
    from onnx import numpy_helper

    before = {node.name: node for node in prepared.graph.node if node.op_type == "Conv"}
    constants = {tensor.name: tensor for tensor in prepared.graph.initializer}
    int8 = set(qdq_graph.int8_layers(proto))
    for node in proto.graph.node:
        if node.name not in int8 or node.name not in before:
            continue
        source = before[node.name]
        name = source.input[2] if len(source.input) > 2 else ""
        if name and name not in constants:
            continue  # computed on the way: there is nothing to write into
        bias = (
            numpy_helper.to_array(constants[name]) if name else _zeros(constants[source.input[1]])
        )
        # a name of its own: the dequantized bias, dropped later, goes by the old one
        node.input[:] = [*node.input[:2], f"{node.name}_float_bias"]
        proto.graph.initializer.append(numpy_helper.from_array(bias, node.input[2]))


def _zeros(weight: TensorProto) -> Floats:
    return np.zeros(weight.dims[0], np.float32)
