"""TFLite file: tensors, operators and one signature, written as a flatbuffer.

A thin hand on the schema that ai-edge-litert carries. Same calls, same bytes. A tensor's batch may
be free: it is stored as 1, with -1 in the shape's signature, and an interpreter resizes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

Array = npt.NDArray[Any]  # type: ignore[explicit-any]  # constants come in several types
SchemaObject = Any  # type: ignore[explicit-any]  # its classes are made, and not typed

SIGNATURE = "serving_default"
TYPES = {np.dtype(np.float32): "FLOAT32", np.dtype(np.int32): "INT32", np.dtype(bool): "BOOL"}
CODES = vars(schema.BuiltinOperator)


@dataclass(frozen=True, slots=True)
class TfliteOperator:
    """An operator of the file: its code's name, its options and the tensors it reads and makes."""

    code: str
    options: SchemaObject
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class TfliteFile:
    """The file while it is put together."""

    def __init__(self) -> None:
        self.operators: list[TfliteOperator] = []
        self._tensors: list[SchemaObject] = []
        self._buffers = [schema.BufferT()]  # the first one is empty, by the format
        self._names: set[str] = set()
        self._known: dict[tuple[str, tuple[int, ...], bytes], int] = {}

    def activation(self, name: str, shape: tuple[int, ...], signature: tuple[int, ...]) -> int:
        """Add a float tensor that is computed; `signature` has -1 where the size is free."""
        free = signature if -1 in signature else None
        return self._add(name, shape, "FLOAT32", buffer=0, signature=free)

    def constant(self, name: str, array: Array) -> int:
        """Add a constant, or find an equal one; 64-bit integers become 32-bit ones."""
        small = array.astype(np.int32) if array.dtype.kind in "iu" else array
        data = np.array(small, order="C")
        key = (str(data.dtype), data.shape, data.tobytes())
        if key not in self._known:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(key[2], np.uint8)
            self._buffers.append(buffer)
            kind = TYPES[data.dtype]
            self._known[key] = self._add(name, data.shape, kind, buffer=len(self._buffers) - 1)
        return self._known[key]

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape, a free batch as 1."""
        return tuple(self._tensors[tensor].shape)

    def signature(self, tensor: int) -> tuple[int, ...]:
        """Return a tensor's shape, a free batch as -1."""
        given = self._tensors[tensor].shapeSignature
        return self.shape(tensor) if given is None else tuple(given)

    def name(self, tensor: int) -> str:
        """Return a tensor's name."""
        return str(self._tensors[tensor].name)

    def operator(
        self,
        code: str,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        options: SchemaObject = None,
    ) -> TfliteOperator:
        """Append an operator."""
        added = TfliteOperator(code, options, inputs, outputs)
        self.operators.append(added)
        return added

    def write(self, path: Path, *, source: int, answer: int) -> None:
        """Write the file, its input named "input" and its answer "logits"."""
        subgraph = schema.SubGraphT()
        subgraph.name, subgraph.tensors = "main", self._tensors
        subgraph.inputs, subgraph.outputs = [source], [answer]
        codes = sorted({one.code for one in self.operators})
        subgraph.operators = [_packed(one, codes.index(one.code)) for one in self.operators]
        model = schema.ModelT()
        model.version, model.description = 3, "fettle"
        model.operatorCodes = [_code(name) for name in codes]
        model.subgraphs, model.buffers = [subgraph], self._buffers
        model.signatureDefs = [_signature(source, answer)]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))

    def _add(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str,
        *,
        buffer: int,
        signature: tuple[int, ...] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, count = name, 1
        while tensor.name in self._names:
            tensor.name, count = f"{name}_{count}", count + 1
        self._names.add(tensor.name)
        tensor.shape = list(shape)
        tensor.type = getattr(schema.TensorType, kind)
        tensor.buffer, tensor.hasRank = buffer, True
        tensor.shapeSignature = None if signature is None else list(signature)
        self._tensors.append(tensor)
        return len(self._tensors) - 1


def _code(name: str) -> SchemaObject:
    """Return an operator's code; those above 127 have a place of their own in the format."""
    code = schema.OperatorCodeT()
    code.builtinCode = CODES[name]
    code.deprecatedBuiltinCode = min(CODES[name], 127)
    code.version = 1  # of a float operator; the quantizer sets those of an int8 one
    return code


def _packed(one: TfliteOperator, index: int) -> SchemaObject:
    packed = schema.OperatorT()
    packed.opcodeIndex = index
    packed.inputs, packed.outputs = list(one.inputs), list(one.outputs)
    if one.options is not None:
        kind = type(one.options).__name__.removesuffix("T")
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        packed.builtinOptions = one.options
    return packed


def _signature(source: int, answer: int) -> SchemaObject:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    ends = {"input": source, "logits": answer}
    maps = []
    for name, tensor in ends.items():
        one = schema.TensorMapT()
        one.name, one.tensorIndex = name, tensor
        maps.append([one])
    signature.inputs, signature.outputs = maps
    return signature
