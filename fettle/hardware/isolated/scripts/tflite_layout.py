"""TFLite layout: an ONNX graph's tensors in a TFLite file, channels last where they have four axes.

ONNX keeps images [N, C, H, W], TFLite's convolutions and pools take [N, H, W, C]. Each tensor of
four axes has up to two forms in the file, either made from the other by one TRANSPOSE when it is
first asked for. Tensors of other ranks have one form.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .tflite_file import TfliteFile, TfliteOperator

if TYPE_CHECKING:
    from onnx import NodeProto

    from .onnx_static_shapes import Array, Shape, StaticGraph

FUSED_NONE = schema.ActivationFunctionType.NONE
LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # to channels last, and back


class TfliteLayout:
    """The file and where each ONNX tensor is in it; `graph` is at batch 1, `twice` at batch 2."""

    def __init__(self, graph: StaticGraph, twice: StaticGraph, answer: str) -> None:
        self.file, self.graph = TfliteFile(), graph
        self._twice = twice.shapes
        self._last: dict[str, int] = {}
        self._plain: dict[str, int] = {}
        self._makers: dict[str, TfliteOperator] = {}
        self._readers = Counter(name for node in graph.nodes for name in node.input)
        self._readers[answer] += 1
        self._rectified: set[str] = set()

    def shape(self, name: str) -> Shape:
        """Return the shape of an ONNX tensor, at batch 1."""
        return self.graph.shapes[name]

    def signature(self, name: str) -> Shape:
        """Return the shape with -1 where it follows the batch."""
        pairs = zip(self.graph.shapes[name], self._twice[name], strict=True)
        return tuple(one if one == two else -1 for one, two in pairs)

    def constant(self, name: str) -> Array | None:
        """Return a constant of the graph, None for what is computed or left out."""
        return self.graph.constants.get(name)

    def is_last(self, *names: str) -> bool:
        """Tell whether any of the tensors is in the file with its channels last."""
        return any(name in self._last for name in names)

    def last(self, name: str) -> int:
        """Return a tensor of four axes with its channels last; a constant of fewer gets them."""
        if name not in self._last:
            array = self.constant(name)
            if array is not None:
                whole = array.reshape((1,) * (4 - array.ndim) + array.shape)
                return self.file.constant(name, whole.transpose(LAST))
            self._last[name] = self._transposed(name, self._plain[name], LAST)
        return self._last[name]

    def plain(self, name: str) -> int:
        """Return a tensor in ONNX's own order of axes."""
        if name not in self._plain:
            array = self.constant(name)
            if array is not None:
                return self.file.constant(name, array)
            self._plain[name] = self._transposed(name, self._last[name], FIRST)
        return self._plain[name]

    def source(self, name: str) -> int:
        """Add the graph's input."""
        shape, signature = self.shape(name), self.signature(name)
        if len(shape) == 4:
            shape, signature = _by(shape, LAST), _by(signature, LAST)
            self._last[name] = self.file.activation("input", shape, signature)
            return self._last[name]
        self._plain[name] = self.file.activation("input", shape, signature)
        return self._plain[name]

    def emit(
        self,
        code: str,
        inputs: tuple[int, ...],
        name: str,
        options: object = None,
        *,
        last: bool,
    ) -> TfliteOperator:
        """Append the operator that makes the ONNX tensor `name`, with its channels last or not."""
        shape, signature = self.shape(name), self.signature(name)
        if last:
            shape, signature = _by(shape, LAST), _by(signature, LAST)
        tensor = self.file.activation(name, shape, signature)
        (self._last if last else self._plain)[name] = tensor
        self._makers[name] = self.file.operator(code, inputs, (tensor,), options)
        return self._makers[name]

    def between(
        self, code: str, inputs: tuple[int, ...], like: int, shape: Shape, options: object = None
    ) -> int:
        """Append an operator whose answer no ONNX tensor is; return that. The batch is as `like`'s.

        `like` tells by its first size whether the batch is free.
        """
        signature = (self.file.signature(like)[0], *shape[1:])
        tensor = self.file.activation(self.file.name(inputs[0]), shape, signature)
        self.file.operator(code, inputs, (tensor,), options)
        return tensor

    def same(self, node: NodeProto) -> None:
        """Let a node's answer be its first input."""
        source, answer = node.input[0], node.output[0]
        for forms in (self._last, self._plain):
            if source in forms:
                forms[answer] = forms[source]

    def fuse(self, node: NodeProto, activation: int) -> bool:
        """Fuse an activation into the operator before it; False where that is not possible."""
        source = node.input[0]
        maker = self._makers.get(source)
        if maker is None or self._readers[source] != 1:
            return False
        if getattr(maker.options, "fusedActivationFunction", None) != FUSED_NONE:
            return False
        maker.options.fusedActivationFunction = activation
        self.same(node)
        return True

    def not_negative(self, name: str) -> bool:
        """Tell whether a tensor is the answer of an activation that is never below zero."""
        return name in self._rectified

    def rectified(self, name: str) -> None:
        """Note that a tensor is never below zero."""
        self._rectified.add(name)

    def _transposed(self, name: str, tensor: int, order: Shape) -> int:
        shape, signature = self.file.shape(tensor), self.file.signature(tensor)
        axes = self.file.constant("axes", np.array(order, np.int32))
        answer = self.file.activation(name, _by(shape, order), _by(signature, order))
        self.file.operator("TRANSPOSE", (tensor, axes), (answer,), schema.TransposeOptionsT())
        return answer


def _by(sizes: Shape, order: Shape) -> Shape:
    return tuple(sizes[axis] for axis in order)
