"""Float fallback, the graph rewrite: layers float again, and all that then gains nothing by int8.

Between two operators lies a pair, QuantizeLinear and DequantizeLinear. ONNX Runtime runs a
convolution in int8 only if its answer goes straight into a pair, so a float reader behind an int8
convolution reads past the pair's end, not before it: before it, the convolution would run in float
with rounded weights. Behind a float operator the reader takes the float answer, and the pair goes.

What only passes values on (Add, pools, Concat, Reshape …) stays int8 as long as a pair before each
input is there for another's sake and an int8 reader wants its answer: else it goes float too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fettle.operator_shape import HEAVY
from fettle.quantize.qdq_graph import channel_axis, int8_layers

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

FUSED = ("Relu", "Clip")  # between a convolution and its pair: both runtimes fuse them
PAIR = ("QuantizeLinear", "DequantizeLinear")


class _Links:
    """Who makes and who reads each tensor of a graph, looking through pairs."""

    def __init__(self, proto: ModelProto) -> None:
        self.makers = {name: node for node in proto.graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in proto.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def pair(self, name: str) -> NodeProto | None:
        """Return the QuantizeLinear behind a dequantized activation; None for anything else."""
        end = self.makers.get(name)
        if end is None or end.op_type != PAIR[1]:
            return None
        start = self.makers.get(end.input[0])
        return start if start is not None and start.op_type == PAIR[0] else None

    def source(self, start: NodeProto) -> str:
        """Name the operator that a pair rounds the answer of, "" for the graph's own input."""
        node = self.makers.get(start.input[0])
        while node is not None and node.op_type in FUSED and self.pair(node.input[0]) is None:
            node = self.makers.get(node.input[0])
        return "" if node is None else str(node.name)

    def behind(self, start: NodeProto) -> set[str]:
        """Name the operators that read what a pair gives."""
        ends = self.readers.get(start.output[0], [])
        return {str(node.name) for end in ends for node in self.readers.get(end.output[0], [])}

    def starts(self, node: NodeProto) -> list[NodeProto]:
        """List the pairs' QuantizeLinear before a node's inputs."""
        return [start for start in map(self.pair, node.input) if start is not None]

    def wanted_by(self, node: NodeProto) -> set[str]:
        """Name the operators that read a node's answer from a pair."""
        pairs = [n for n in self.readers.get(node.output[0], []) if n.op_type == PAIR[0]]
        return {name for start in pairs for name in self.behind(start)}


def reverted(quantized: ModelProto, prepared: ModelProto, names: Collection[str]) -> ModelProto:
    """Return a copy of the int8 graph with the named layers float."""
    proto = type(quantized)()
    proto.CopyFrom(quantized)
    if names:
        revert(proto, prepared=prepared, names=frozenset(names))
    return proto


def revert(proto: ModelProto, *, prepared: ModelProto, names: frozenset[str]) -> None:
    """Revert the named layers to float, and what then gains nothing by int8, in place.

    The quantizer takes a Clip or Relu out where the next range cuts the same values off; a float
    operator that reads before that range gets it back. Unread pairs stay, for graph_cleanup.py.
    """
    links = _Links(proto)
    heavy = frozenset(int8_layers(proto)) - names
    passing = _passing(proto, links, heavy)
    convolutions = {n.name for n in proto.graph.node if n.op_type == "Conv" and n.name in heavy}
    present = {node.name for node in proto.graph.node}
    before = {node.name: node for node in prepared.graph.node}
    constants = {tensor.name: tensor for tensor in prepared.graph.initializer}
    taken_out = {n.output[0]: n for n in prepared.graph.node if n.name not in present}
    for node in list(proto.graph.node):
        reads_pair = node.op_type not in HEAVY and bool(links.starts(node))
        if node.name not in before or not (node.name in names or reads_pair):
            continue
        if node.name in passing:
            continue
        sources = before[node.name].input
        del node.input[len(sources) :]  # a bias that the float layer has not
        for index, source in enumerate(sources):
            start = links.pair(node.input[index])
            if source in constants:
                node.input[index] = _keep(proto, constants[source])
            elif start is None:
                continue
            elif links.source(start) not in convolutions | passing:
                inner = start.input[0]
                cut = taken_out.get(inner)
                node.input[index] = inner if cut is None else _put_back(proto, cut, constants)
            elif node.name in names:
                node.input[index] = _by_channel(
                    proto, node.input[index], _channels(node, constants, sources)
                )


def _passing(proto: ModelProto, links: _Links, heavy: frozenset[str]) -> set[str]:
    """Name the operators that pass values on in int8 for the sake of the `heavy` ones.

    The greatest set in which each member has its inputs in int8 anyway, and a reader in int8.
    """
    nodes = [
        node
        for node in proto.graph.node
        if node.op_type not in (*HEAVY, *PAIR) and links.starts(node)
    ]
    names = {node.name for node in nodes}
    size = -1
    while size != len(names):
        size = len(names)
        for node in nodes:
            int8 = heavy | names
            there = all(
                links.source(start) in int8 or not heavy.isdisjoint(links.behind(start))
                for start in links.starts(node)
            )
            if not there or int8.isdisjoint(links.wanted_by(node)):
                names.discard(node.name)
    return names


def _keep(proto: ModelProto, tensor: TensorProto) -> str:
    """Add a constant of the float graph under a name of its own; return the name."""
    name = f"{tensor.name}_float"
    if name not in {tensor.name for tensor in proto.graph.initializer}:
        proto.graph.initializer.add().CopyFrom(tensor)
        proto.graph.initializer[-1].name = name
    return name


def _channels(node: NodeProto, constants: dict[str, TensorProto], sources: Sequence[str]) -> int:
    """Count the channels that a layer reads, by its weight: [out, in / group, …] or [in, out]."""
    dims = constants[sources[1]].dims
    if node.op_type == "Conv":
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return int(dims[1] * group)
    return int(dims[1 - channel_axis(node, len(dims))])


def _by_channel(proto: ModelProto, name: str, channels: int) -> str:
    """Write a pair's end again with its scale and zero point once a channel; return its answer.

    The same values. By one scale, ONNX Runtime 1.32 would take the layer for one that its maker
    forgot to quantize, and round its float weights per tensor (weight_bias_quantization.cc).
    """
    from onnx import numpy_helper

    answer = f"{name}_by_channel"
    nodes = proto.graph.node
    if any(answer in node.output for node in nodes):
        return answer
    position = next(index for index, node in enumerate(nodes) if name in node.output)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    copy = type(nodes[position])()
    copy.CopyFrom(nodes[position])
    copy.name = copy.output[0] = answer
    for place, constant in enumerate(copy.input[1:], start=1):
        value = np.full(channels, numpy_helper.to_array(constants[constant]))
        copy.input[place] = f"{answer}_{place}"
        proto.graph.initializer.append(numpy_helper.from_array(value, copy.input[place]))
    nodes.insert(position + 1, copy)
    return answer


def _put_back(proto: ModelProto, node: NodeProto, constants: dict[str, TensorProto]) -> str:
    """Insert a Clip or Relu that the quantizer took out; return its answer's name."""
    source, answer = node.output[0], f"{node.output[0]}_float"
    if answer not in {name for maker in proto.graph.node for name in maker.output}:
        position = next(
            index for index, maker in enumerate(proto.graph.node) if source in maker.output
        )
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[:] = [source, *(_keep(proto, constants[name]) for name in node.input[1:])]
        copy.output[:] = [answer]
        proto.graph.node.insert(position + 1, copy)
    return answer
