"""Operator placement: which operators stay float in an int8 graph, shaped so that the rest fuses.

Looked at: the graph ONNX Runtime 1.32 makes of our families' QDQ files (`optimized_model_filepath`)
and its time per operator, one thread, 32 px, the digits model pruned to 0.25. Every convolution
fused; what int8 lost to float was

    the stem            28 µs against 9    9 products an output: unfolding the image costs more
    the first depthwise 22 µs against 9    than the products save
    mean, Reshape       DequantizeLinear, ReduceMean, QuantizeLinear, Reshape, and a Transpose

so the first ones stay float (`float_head`), and the mean becomes GlobalAveragePool, which has an
int8 form (`pool_whole_maps`). 209 µs became 186, float 183. The same on EfficientNet-Lite0 whole:
580 µs to 530 at 32 px, 1,014 to 950 at 96 px. OpenVINO is indifferent (within 2 %).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# One AVX512-VNNI instruction (vpdpbusd, zmm) takes 64 products of 8 bits.
VECTOR_PRODUCTS = 64
FOLLOWED = ("Clip", "Relu")  # what a runtime fuses into the convolution before it


def float_head(proto: ModelProto) -> list[str]:
    """Name the convolutions at the image, larger than 1x1, of fewer products than one instruction.

    Followed from the image. None where a residual begins at their end: both its readers then want
    it int8 in another layout, and six Transposes appear (ResNet 20). Nodes must have names.
    """
    graph = proto.graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input if node.op_type != "Shape" else ():  # it reads no values
            readers.setdefault(name, []).append(node)
    frontier = next(i.name for i in graph.input if i.name not in weights)
    head = []
    while len(readers.get(frontier, ())) == 1:
        node = readers[frontier][0]
        if node.op_type == "Conv" and node.input[1] in weights:
            _, inside, *kernel = weights[node.input[1]]
            unfolded = math.prod(kernel)
            if unfolded == 1 or inside * unfolded >= VECTOR_PRODUCTS:
                break
            head.append(node.name)
        elif node.op_type not in FOLLOWED:
            break
        frontier = node.output[0]
    else:
        return []
    return head


def name_nodes(proto: ModelProto) -> None:
    """Give each node without a name of its own the name of its first output."""
    counts = Counter(node.name for node in proto.graph.node)
    for node in proto.graph.node:
        if not node.name or counts[node.name] > 1:
            node.name = f"{node.op_type}_{node.output[0]}"


def pool_whole_maps(proto: ModelProto) -> None:
    """Write each ReduceMean over height and width, which keeps its rank, as GlobalAveragePool."""
    from onnx import numpy_helper

    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in graph.value_info}
    for node in graph.node:
        if node.op_type != "ReduceMean" or ranks.get(node.input[0]) != 4:
            continue
        given = {a.name: a for a in node.attribute}
        axes = list(given["axes"].ints) if "axes" in given else []
        if len(node.input) > 1 and node.input[1] in constants:  # an input since opset 18
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        keeps_rank = "keepdims" not in given or given["keepdims"].i == 1
        if sorted(axis % 4 for axis in axes) == [2, 3] and keeps_rank:
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]
            del node.input[1:]
