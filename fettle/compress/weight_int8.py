"""Weights in int8, activations in float: a quarter of the file, no calibration, next to no loss.

The rung between fp32 and int8. Each weight of a Conv, Gemm or MatMul is stored per output channel
as int8 with a scale, and a DequantizeLinear gives it back, once, when the runtime loads the file
(fettle/runtimes/ort.py asks for that; OpenVINO does it by itself). It runs at fp32's speed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fettle.compress import Claims, _compact, _placement, _qdq_graph
from fettle.compress._ort_quantizer import prepare, translated
from fettle.errors import ModelError
from fettle.params import Strict

CLAIMS = Claims(
    kind="graph",
    needs_training=False,
    shrinks_parameters=False,
    shrinks_macs=False,
    keeps_shapes=True,
)


class Params(Strict):
    """Nothing to choose."""


def apply(model: Path, out: Path) -> _qdq_graph.Coverage:
    """Write the ONNX `model` with int8 weights to `out`; same inputs, same bytes.

    `quantized` of the answer counts the operators whose weight is int8. Raises ModelError when
    there is none, or the file cannot be folded.
    """
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory(prefix="fettle-int8-") as name, translated(model):
        proto = prepare(model, Path(name))
    _placement.name_nodes(proto)
    counts = {"quantized": dict[str, int](), "left": dict[str, int]()}
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    done: set[str] = set()
    for node in [n for n in proto.graph.node if n.op_type in _qdq_graph.HEAVY]:
        tensor = weights.get(node.input[1])
        worth = tensor is not None and fits(tensor)
        part = counts["quantized" if worth else "left"]
        part[node.op_type] = part.get(node.op_type, 0) + 1
        if worth and node.input[1] not in done:
            done.add(node.input[1])
            array = np.asarray(numpy_helper.to_array(tensor))
            axis = _qdq_graph.channel_axis(node, array.ndim)
            store(proto, node.input[1], *quantize(array, axis), axis=axis)
    if not done:
        raise ModelError(
            f"{model.name} has no weights to store in int8",
            got=f"no {', '.join(_qdq_graph.HEAVY)} with constant weights",
            rule="only their weights are worth it",
            fix="drop the w8 targets (params.yaml: targets)",
        )
    _compact.compact(proto)
    out.write_bytes(proto.SerializeToString(deterministic=True))
    return _qdq_graph.Coverage(quantized=counts["quantized"], left=counts["left"])


def quantize(weight: npt.NDArray[np.float32], axis: int) -> tuple[Any, npt.NDArray[np.float32]]:
    """Round a weight per channel of `axis` to int8, symmetric: values of its shape, scales [c].

    A channel of zeros gets scale 1. A value is off by half a step at most, a step being the
    channel's largest weight / 127.
    """
    moved = np.moveaxis(weight, axis, 0)
    largest = np.abs(moved).reshape(len(moved), -1).max(axis=1)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    shape = [-1 if at == axis else 1 for at in range(weight.ndim)]
    values = np.clip(np.round(weight / scales.reshape(shape)), -127, 127).astype(np.int8)
    return values, scales


def fits(tensor: Any) -> bool:  # Any: onnx's, untyped
    """Tell whether a weight is worth storing in fewer bits."""
    return bool(tensor.data_type == tensor.FLOAT and len(tensor.dims) > 1)


def store(
    proto: Any,  # Any: onnx.ModelProto, untyped
    name: str,
    values: npt.NDArray[np.int8],
    scales: npt.NDArray[np.float32],
    *,
    axis: int,
    packed: bool = False,
) -> None:
    """Replace a weight by its whole numbers and a DequantizeLinear that answers to its name.

    `packed`: two values (-8 to 7) share a byte, as int4.
    """
    from ml_dtypes import int4
    from onnx import helper, numpy_helper

    tensor = next(one for one in proto.graph.initializer if one.name == name)
    proto.graph.initializer.remove(tensor)
    kept = values.astype(int4) if packed else values
    for suffix, one in (("_values", kept), ("_scales", scales)):
        proto.graph.initializer.append(numpy_helper.from_array(one, f"{name}{suffix}"))
    stored = [f"{name}_values", f"{name}_scales"]
    restores = helper.make_node("DequantizeLinear", stored, [name], f"{name}_restore", axis=axis)
    proto.graph.node.insert(0, restores)
