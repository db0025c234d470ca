"""Static shapes and constants of an ONNX graph at one batch size, node by node.

What a graph computes from constants and shapes alone (the size of a reshape, the ends of a slice)
is worked out here, so that a converter meets operators on data only. Run in a toolchain's Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = npt.NDArray[Any]  # type: ignore[explicit-any]  # constants come in every type of ONNX
Shape = tuple[int, ...]

SMALL = 4096  # elements of a constant that a shape may follow from: sizes, axes, pads


@dataclass(frozen=True, slots=True)
class StaticGraph:
    """A graph whose batch is one number: nodes on data, each tensor's shape, what is constant."""

    nodes: list[NodeProto] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)


def infer(model: ModelProto, batch: int) -> StaticGraph:
    """Walk the graph once; raises ValueError where a shape depends on the data."""
    found = StaticGraph()
    for tensor in model.graph.initializer:
        found.constants[tensor.name] = numpy_helper.to_array(tensor)
    for value in model.graph.input:
        if value.name not in found.constants:
            found.shapes[value.name] = _input_shape(value, batch)
    for node in model.graph.node:
        names = [name for name in node.input if name]
        if node.op_type == "Shape":
            found.constants[node.output[0]] = _shape(node, found)
        elif all(name in found.constants for name in names):
            found.constants.update(_evaluate(model, node, found))
        else:
            found.shapes.update(_infer_node(model, node, found))
            found.nodes.append(node)
    for name, array in found.constants.items():
        found.shapes[name] = array.shape
    return found


def _input_shape(value: onnx.ValueInfoProto, batch: int) -> Shape:
    first, *others = value.type.tensor_type.shape.dim
    if any(size.dim_value <= 0 for size in others):
        raise ValueError(f"the input {value.name} has a free size beside its batch")
    return (first.dim_value or batch, *(int(size.dim_value) for size in others))


def _shape(node: NodeProto, found: StaticGraph) -> Array:
    given = {a.name: a.i for a in node.attribute}
    name = node.input[0]
    shape = found.shapes[name] if name in found.shapes else found.constants[name].shape
    return np.array(shape[given.get("start", 0) : given.get("end", len(shape))], np.int64)


def _evaluate(model: ModelProto, node: NodeProto, found: StaticGraph) -> dict[str, Array]:
    """Run a node on constants."""
    from onnx.reference import ReferenceEvaluator

    names = dict.fromkeys(name for name in node.input if name)
    alone = _alone(model, node, {name: found.constants[name] for name in names}, {})
    outputs = [name for name in node.output if name]
    values = ReferenceEvaluator(alone).run(outputs, {name: found.constants[name] for name in names})
    return dict(zip(outputs, values, strict=True))


def _infer_node(model: ModelProto, node: NodeProto, found: StaticGraph) -> dict[str, Shape]:
    """Infer what a node answers from what goes in."""
    constants = {name: found.constants[name] for name in node.input if name in found.constants}
    shapes = {name: found.shapes[name] for name in node.input if name in found.shapes}
    alone = _alone(model, node, constants, shapes)
    inferred = onnx.shape_inference.infer_shapes(alone, strict_mode=True, data_prop=True)
    result = {}
    for value in inferred.graph.output:
        sizes = value.type.tensor_type.shape.dim
        known = value.type.tensor_type.HasField("shape")
        if not known or not all(size.HasField("dim_value") for size in sizes):
            raise ValueError(f"the shape behind {node.op_type} ({node.name}) depends on the data")
        result[value.name] = tuple(int(size.dim_value) for size in sizes)
    return result


def _alone(
    model: ModelProto, node: NodeProto, constants: dict[str, Array], shapes: dict[str, Shape]
) -> ModelProto:
    """Make a model of one node; small constants go in whole, for shapes may follow from them."""
    whole = {name: a for name, a in constants.items() if a.size <= SMALL}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in constants.items()
    ]
    inputs += [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    weights = [numpy_helper.from_array(np.array(a), name) for name, a in whole.items()]
    graph = helper.make_graph([node], "one", inputs, outputs, initializer=weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
