"""VNNI emulation: answers of an x86 CPU without it, where int8 products saturate at 16 bits.

There VPMADDUBSW multiplies unsigned activations with signed weights and adds two neighbours along
the reduction to a 16-bit number, cut at [-32768, 32767] (Intel SDM, vol. 2). Two products of 255
and 127 are 64,770, so a file that is sound with VNNI can answer otherwise there. ONNX Runtime's
packed kernels take this path for Conv, Gemm and MatMul; its depthwise kernel multiplies in 32 bits.

The reduction runs over (kernel row, kernel column, channel), channels last, as ONNX Runtime lays
images out. A pair of weights w, v can only saturate where 255 (|w| + |v|) > 32767: the exact
product comes from BLAS, and those pairs are corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
# What the graph passes on: activations and weights, float or quantized, shapes and masks.
Array = npt.NDArray[np.float32 | np.float64 | np.uint8 | np.int8 | np.int32 | np.int64 | np.bool_]
Values = dict[str, Array]

LOW, HIGH = -32768, 32767
BATCH = 32  # images at once: the unfolded layer of one batch is held in memory


@dataclass(frozen=True, slots=True)
class EmulationResult:
    """Emulation result: logits [n, classes] with and without saturation; `layers` {name: share of
    sums changed}.
    """

    saturated: Floats
    exact: Floats
    layers: Mapping[str, float]


def emulate(model: Path, batch: Floats) -> EmulationResult:
    """Run an int8 ONNX (QDQ, U8S8) on `batch` [n, C, H, W] twice: as without VNNI, and exactly.

    Compare `exact` with the runtime's own answers before `saturated` is believed. Raises ModelError
    for an operator that numpy or ONNX's reference cannot follow.
    """
    import onnx

    plan = _Plan(onnx.load(model))
    parts = {False: [], True: []}  # type: dict[bool, list[Floats]]
    changed: dict[str, list[float]] = {}
    for start in range(0, len(batch), BATCH):
        for saturates in (False, True):
            logits = _run(plan, batch[start : start + BATCH], changed if saturates else None)
            parts[saturates].append(logits.astype(np.float32))
    return EmulationResult(
        np.concatenate(parts[True]),
        np.concatenate(parts[False]),
        {name: float(np.mean(shares)) for name, shares in changed.items() if any(shares)},
    )


class _Plan:
    """A graph with its constants, and which nodes multiply in int8."""

    def __init__(self, proto: ModelProto) -> None:
        from onnx import numpy_helper

        graph = proto.graph
        self.opsets = {opset.domain: opset.version for opset in proto.opset_import}
        self.nodes = list(graph.node)
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.input = next(i.name for i in graph.input if i.name not in self.constants)
        self.output = graph.output[0].name
        self.makers = {name: node for node in self.nodes for name in node.output}

    def quantized(self, node: NodeProto) -> bool:
        """Tell whether both factors come dequantized."""
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            return False
        makers = [self.makers.get(name) for name in node.input[:2]]
        return all(m is not None and m.op_type == "DequantizeLinear" for m in makers)


def _run(plan: _Plan, batch: Floats, changed: dict[str, list[float]] | None) -> Floats:
    """Run the graph node by node; with `changed`, sums saturate and their shares are noted."""
    values: Values = {**plan.constants, plan.input: batch}
    for node in plan.nodes:
        try:
            _step(plan, node, values, changed)
        except Exception as err:  # ONNX's reference raises what its numpy raised
            raise ModelError(
                f"the operator {node.op_type} cannot be emulated",
                got=(str(err).strip().splitlines() or [type(err).__name__])[0][:300],
                rule="two-dimensional convolutions with explicit pads, and ONNX's own operators",
                fix="measure the int8 file on such a CPU instead",
            ) from err
    return np.asarray(values[plan.output])


def _step(
    plan: _Plan,
    node: NodeProto,
    values: Values,
    changed: dict[str, list[float]] | None,
) -> None:
    """Add one node's answers to `values`."""
    from onnx.reference import ReferenceEvaluator

    fed = {name: values[name] for name in node.input if name}
    if plan.quantized(node):
        values[node.output[0]] = _heavy(plan, node, values, changed)
    elif node.op_type == "Conv":
        answer = _convolve(node, fed[node.input[0]], fed[node.input[1]])
        if len(node.input) > 2:
            answer = np.asarray(answer + fed[node.input[2]][:, None, None])
        values[node.output[0]] = answer
    else:
        answers = ReferenceEvaluator(node, opsets=plan.opsets).run(None, fed)
        assert isinstance(answers, list)  # of a node; of a sequence it may be a dict
        values.update(zip(node.output, answers, strict=True))


def _heavy(
    plan: _Plan,
    node: NodeProto,
    values: Values,
    changed: dict[str, list[float]] | None,
) -> Floats:
    """Multiply in integers, then scale: activations [uint8] x weights [int8] + bias."""
    left, right = (plan.makers[name] for name in node.input[:2])
    data, weight = values[left.input[0]], values[right.input[0]]
    zero = values[left.input[2]] if len(left.input) > 2 else 0
    scales = values[left.input[1]] * np.atleast_1d(values[right.input[1]])
    given = {a.name: a for a in node.attribute}
    transposed = "transB" in given and given["transB"].i == 1
    depthwise = node.op_type == "Conv" and data.shape[1] > weight.shape[1] == 1
    if node.op_type == "Conv":
        zeros = np.float64(zero)
        exact = _convolve(node, data.astype(np.float64) - zeros, weight.astype(np.float64))
        if changed is not None and not depthwise:
            rows, shape = _unfold(node, data, weight, int(zero))
            flat = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
            fix = _correction(rows, flat)
            changed.setdefault(node.name, []).append(float((fix != 0).mean()))
            exact = np.asarray(exact + fix.reshape(*shape, -1).transpose(0, 3, 1, 2))
        answer = exact * scales[:, None, None]
        bias = values[node.input[2]][:, None, None] if len(node.input) > 2 else 0.0
    else:
        flat = weight.T if transposed else weight
        exact = (data.astype(np.float64) - np.float64(zero)) @ flat.astype(np.float64)
        if changed is not None:
            fix = _correction(data, flat)
            changed.setdefault(node.name, []).append(float((fix != 0).mean()))
            exact += fix
        answer = exact * scales
        bias = values[node.input[2]] if len(node.input) > 2 else 0.0
    return np.asarray(answer + bias, dtype=np.float32)


def _correction(rows: Array, weight: Array) -> Doubles:
    """Return what saturation adds to rows uint8 [m, k] @ weight int8 [k, n]: float64 [m, n]."""
    if len(weight) % 2:  # a kernel pads the reduction with zeros
        weight = np.concatenate([weight, np.zeros_like(weight[:1])])
        rows = np.concatenate([rows, np.zeros_like(rows[:, :1])], axis=1)
    wide = weight.astype(np.int32)
    first, second = wide[0::2], wide[1::2]
    risky = 255 * np.maximum(first, 0) + 255 * np.maximum(second, 0) > HIGH
    risky |= 255 * np.minimum(first, 0) + 255 * np.minimum(second, 0) < LOW
    fix = np.zeros((len(rows), weight.shape[1]))
    pairs, columns = np.nonzero(risky)
    data = rows.astype(np.int32)
    for pair, column in zip(pairs, columns, strict=True):
        even, odd = data[:, 2 * pair], data[:, 2 * pair + 1]
        total = even * first[pair, column] + odd * second[pair, column]
        fix[:, column] += np.clip(total, LOW, HIGH) - total
    return fix


def _geometry(node: NodeProto) -> tuple[list[int], list[int], list[int]]:
    """Read strides, pads (top, left, bottom, right) and dilations."""
    given = {a.name: list(a.ints) for a in node.attribute}
    if any(a.name == "auto_pad" and a.s != b"NOTSET" for a in node.attribute):
        raise ValueError("auto_pad")
    strides, dilations = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    return strides, given.get("pads", [0, 0, 0, 0]), dilations


def _windows(node: NodeProto, data: Array, kernel: tuple[int, ...], fill: int) -> Array:
    """View an image [n, c, h, w] as windows [n, c, oh, ow, kh, kw]."""
    strides, pads, dilations = _geometry(node)
    padded = np.pad(
        data,
        ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])),
        constant_values=fill,
    )
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    return seen[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def _convolve(node: NodeProto, data: Array, weight: Array) -> Array:
    """Convolve [n, c, h, w] with [o, c / groups, kh, kw], without bias."""
    seen = _windows(node, data, weight.shape[2:], 0)
    groups = data.shape[1] // weight.shape[1]
    if weight.shape[1] == 1 and groups == len(weight):
        return np.asarray(np.einsum("nchwkl,ckl->nchw", seen, weight[:, 0], optimize=True))
    if groups == 1:
        return np.tensordot(seen, weight, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    parts = zip(np.split(seen, groups, axis=1), np.split(weight, groups), strict=True)
    done = [np.tensordot(s, w, axes=((1, 4, 5), (1, 2, 3))) for s, w in parts]
    return np.concatenate(done, axis=-1).transpose(0, 3, 1, 2)


def _unfold(
    node: NodeProto, data: Array, weight: Array, zero: int
) -> tuple[Array, tuple[int, int, int]]:
    """Unfold uint8 images to rows [n * oh * ow, kh * kw * c] and return (n, oh, ow).

    Padding holds the zero point, as in the runtime.
    """
    seen = _windows(node, data, weight.shape[2:], zero)
    n, _, height, width = seen.shape[:4]
    rows = seen.transpose(0, 2, 3, 4, 5, 1).reshape(n * height * width, -1)
    return rows, (n, height, width)
