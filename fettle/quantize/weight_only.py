"""Weights in fewer bits, activations in float: what weight_fp16, _int8 and _int4 share."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.errors import ModelError
from fettle.operator_shape import HEAVY
from fettle.quantize import graph_cleanup, operator_placement, qdq_graph
from fettle.quantize.ort_quantizer import OPSET, prepare, translated

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RoundedWeight:
    """One weight in whole numbers, with a scale per channel of `axis`."""

    values: npt.NDArray[np.int8]
    scales: Floats
    axis: int

    def widened(self) -> Floats:
        """Return what the runtime computes with."""
        shape = [-1 if axis == self.axis else 1 for axis in range(self.values.ndim)]
        return self.values * self.scales.reshape(shape)


def load_folded(
    model: Path, *, opset: int = OPSET
) -> tuple[ModelProto, list[NodeProto], dict[str, TensorProto]]:
    """Fold the ONNX `model`: its graph, its heavy operators, and their weights worth storing.

    Those are float and of two dimensions or more, by name. Raises ModelError when the file cannot
    be folded.
    """
    with tempfile.TemporaryDirectory(prefix="fettle-weights-") as name, translated(model):
        proto = prepare(model, Path(name), opset=opset)
    operator_placement.name_nodes(proto)
    heavy = [node for node in proto.graph.node if node.op_type in HEAVY]
    read = {node.input[1] for node in heavy}
    weights = {
        tensor.name: tensor
        for tensor in proto.graph.initializer
        if tensor.name in read and tensor.data_type == tensor.FLOAT and len(tensor.dims) > 1
    }
    return proto, heavy, weights


def write_compact(proto: ModelProto, out: Path) -> None:
    """Make the graph compact and write it; same graph, same bytes. Its tensors get other names."""
    graph_cleanup.compact(proto)
    out.write_bytes(proto.SerializeToString(deterministic=True))


def no_weights_error(model: Path, form: str, *, weights: str, targets: str) -> ModelError:
    """Make the error of a model without weights for a form; `weights` says which would do."""
    return ModelError(
        f"{model.name} has no weights to store in {form}",
        got=f"no {', '.join(HEAVY)} with {weights}",
        rule="only their weights are worth it",
        fix=f"drop the {targets} targets (params.yaml: targets)",
    )


def round_to_int8(
    heavy: Sequence[NodeProto], weights: Mapping[str, TensorProto]
) -> dict[str, RoundedWeight]:
    """Round each weight held to int8, in the order of the operators that read them."""
    from onnx import numpy_helper

    rounded: dict[str, RoundedWeight] = {}
    for node in heavy:
        name = node.input[1]
        if name in weights and name not in rounded:
            array = np.asarray(numpy_helper.to_array(weights[name]))
            axis = qdq_graph.channel_axis(node, array.ndim)
            rounded[name] = RoundedWeight(*quantize(array, axis), axis)
    return rounded


def quantize(
    weight: Floats,
    axis: int,
    *,
    largest: int = 127,
    steps_min: npt.NDArray[np.float64] | float = 0.0,
) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round a weight per channel of `axis` to int8, symmetric: values of its shape, scales [c].

    A value is at most `largest` and off by half a step at most, a step being the channel's largest
    weight / `largest`, or `steps_min` [c] where that is more. A channel of zeros gets scale 1.
    """
    moved = np.moveaxis(weight, axis, 0)
    steps = np.abs(moved).reshape(len(moved), -1).max(axis=1) / np.float64(largest)
    steps = np.maximum(steps, steps_min)
    scales = np.where(steps > 0, steps, 1).astype(np.float32)
    shape = [-1 if dimension == axis else 1 for dimension in range(weight.ndim)]
    values = np.clip(np.round(weight / scales.reshape(shape)), -largest, largest).astype(np.int8)
    return values, scales


def store(proto: ModelProto, name: str, rounded: RoundedWeight, *, packed: bool = False) -> None:
    """Replace a weight by its whole numbers and a DequantizeLinear that answers to its name.

    `packed`: two values (-8 to 7) share a byte, as int4.
    """
    from ml_dtypes import int4
    from onnx import helper, numpy_helper

    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    proto.graph.initializer.remove(tensor)
    kept = rounded.values.astype(int4) if packed else rounded.values
    for suffix, part in (("_values", kept), ("_scales", rounded.scales)):
        proto.graph.initializer.append(numpy_helper.from_array(part, f"{name}{suffix}"))
    stored = [f"{name}_values", f"{name}_scales"]
    restores = helper.make_node(
        "DequantizeLinear", stored, [name], f"{name}_restore", axis=rounded.axis
    )
    proto.graph.node.insert(0, restores)
