"""ONNX to TFLite: an image classifier in float32, its input [N, H, W, C].

Operator by operator, without TensorFlow or torch: onnx works the shapes out, a table says each
operator's TFLite form, ai-edge-litert's schema writes it. What the table lacks is refused, all of
it in one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import version_converter

from . import onnx_static_shapes, weight_floor
from .onnx_attributes import Untranslatable
from .tflite_layout import TfliteLayout
from .tflite_operators import OPERATORS

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20  # of the models that fettle exports; an older file is raised to it


def convert(model: Path, out: Path, *, free_batch: bool, for_int8: bool = False) -> None:
    """Write the float TFLite file of an ONNX to `out`; without `free_batch` it takes one image.

    With `for_int8`, weights whose int8 scale would be too small for their bias are raised to it.
    Raises ValueError with every operator that has no TFLite form here.
    """
    proto = _read(model)
    if for_int8:
        weight_floor.raise_weights(proto)
    graph = onnx_static_shapes.infer(proto, 1)
    twice = onnx_static_shapes.infer(proto, 2) if free_batch else graph
    answer = proto.graph.output[0].name
    layout = TfliteLayout(graph, twice, answer)
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.name for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1 or answer in graph.constants:
        raise ValueError(f"a classifier has one input and an answer of it, this has {inputs}")
    lacking = [node for node in graph.nodes if node.op_type not in OPERATORS]
    if lacking:
        kinds = sorted({node.op_type for node in lacking})
        raise ValueError(f"there is no TFLite form here of the operators {', '.join(kinds)}")
    source = layout.source(inputs[0])
    for node in graph.nodes:
        try:
            OPERATORS[node.op_type](layout, node)
        except Untranslatable as err:
            raise ValueError(f"no TFLite form of {node.op_type} ({node.name}) with {err}") from err
    layout.file.write(out, source=source, answer=layout.plain(answer))


def _read(model: Path) -> ModelProto:
    """Read a file; what is built of others (LayerNormalization) is taken apart."""
    proto = onnx.load(model)
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version < OPSET:
        proto = version_converter.convert_version(proto, OPSET)
    return proto
