"""GPTQ: weights rounded input by input, each error compensated by the inputs that are left.

What is kept is the layer's answer, not its weights: rounded plainly to int4 the digits model
(EfficientNet-Lite0) changes 90 % of its answers, rounded so 7 %. Frantar et al. 2022, "GPTQ:
Accurate Post-Training Quantization for Generative Pre-trained Transformers", equations 2 and 3,
with the Cholesky form of section 3.3; all outputs share one order of inputs, as there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.quantize import graph_session, qdq_graph

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LEAST, MOST = -8, 7  # int4
DAMPING = 0.01  # of the moments' mean diagonal; the paper's own, section 3.3
# Sums over 8 x 8 places of a map, 256 images: 16,384 samples of at most 4,608 inputs.
PLACES_SIDE = 8
INPUTS_MAX = 4608  # a 3x3 convolution of 512 channels: 85 MB of moments, some 20 s to solve
# Steps tried, as shares of the largest weight / 7: clipping the few largest may pay.
STEPS = np.linspace(0.5, 1.1, 31)


def supports_operator(node: NodeProto, dims: Sequence[int]) -> bool:
    """Tell whether `node`'s inputs can be taken apart here: 2-D convolutions, linear layers."""
    given = _attributes(node)
    if node.op_type == "Conv":
        plain = "auto_pad" not in given or given["auto_pad"].s == b"NOTSET"
        return plain and len(dims) == 4 and math.prod(dims[1:]) <= INPUTS_MAX
    transposed = {name for name in ("transA", "transB") if name in given and given[name].i}
    wide = dims[1] if "transB" in transposed else dims[0]
    return len(dims) == 2 and "transA" not in transposed and wide <= INPUTS_MAX


def input_second_moments(
    proto: ModelProto,
    nodes: Sequence[NodeProto],
    dims: Mapping[str, Sequence[int]],
    batches: Sequence[Floats],
) -> dict[str, Floats]:
    """Second moments: sum x xᵀ over each layer's inputs x, on images [n, C, H, W]: {node: [groups,
    d, d]}.

    `dims` {weight: its shape}; d is what one output of a group reads.
    """
    source = qdq_graph.input_name(proto)
    names = sorted({node.input[0] for node in nodes} - {source})
    session = graph_session.watching(proto, names)
    moments: dict[str, Floats] = {}
    for batch in batches:
        answers = session.run(names, {source: batch}) if names else []  # no names would mean all
        given = dict(zip(names, answers, strict=True)) | {source: batch}
        for node in nodes:
            read = _unfolded(node, dims[node.input[1]], given[node.input[0]])
            squares = read @ read.transpose(0, 2, 1)
            moments[node.name] = moments[node.name] + squares if node.name in moments else squares
    return moments


def quantize(rows: Floats, moments: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round rows [outputs, d] to int4 by `moments` [groups, d, d]; a row of zeros gets scale 1.

    Returns values -8 to 7 [outputs, d], and their scales [outputs].
    """
    groups, width = moments.shape[:2]
    left = rows.astype(np.float64).reshape(groups, -1, width)
    scales = _steps(left, np.diagonal(moments, axis1=1, axis2=2))
    values = np.empty(left.shape, np.int8)
    factors = _factors(moments)
    for column in range(width):
        values[..., column] = np.clip(np.round(left[..., column] / scales), LEAST, MOST)
        off = left[..., column] - values[..., column] * scales
        off /= factors[:, None, column, column]
        left[..., column:] -= off[..., None] * factors[:, None, column, column:]
    return values.reshape(rows.shape), scales.reshape(-1).astype(np.float32)


def _steps(left: Doubles, weight: Floats) -> Doubles:
    """Choose each row's step: the least squared error, an input counting as its own size does."""
    largest = np.abs(left).max(axis=2)
    unit = np.where(largest > 0, largest / MOST, 1)
    errors = []
    for share in STEPS:
        step = (share * unit)[..., None]
        off = np.clip(np.round(left / step), LEAST, MOST) * step - left
        errors.append((off**2 * weight[:, None, :]).sum(axis=2))
    best = STEPS[np.argmin(errors, axis=0)] * unit
    # as the file will hold it
    return np.where(largest > 0, best, 1).astype(np.float32).astype(np.float64)


def _factors(moments: Floats) -> Doubles:
    """Return the upper Cholesky factors of the damped moments' inverses."""
    hessian = moments.astype(np.float64)
    mean = np.diagonal(hessian, axis1=1, axis2=2).mean(axis=1)
    damped = hessian + np.maximum(DAMPING * mean, 1e-12)[:, None, None] * np.eye(hessian.shape[1])
    inverse = np.linalg.inv(damped)
    lower = np.linalg.cholesky((inverse + inverse.transpose(0, 2, 1)) / 2)
    return np.asarray(lower.transpose(0, 2, 1))


def _unfolded(node: NodeProto, dims: Sequence[int], array: Floats) -> Floats:
    """Lay out what each output reads: [groups, d, samples]."""
    if node.op_type != "Conv":
        return array.reshape(1, -1, array.shape[-1]).transpose(0, 2, 1)
    given = _attributes(node)
    top, before, bottom, behind = given["pads"].ints if "pads" in given else [0] * 4
    down, right = given["strides"].ints if "strides" in given else [1, 1]
    apart = given["dilations"].ints if "dilations" in given else [1, 1]
    padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (before, behind)))
    sides = [(size - 1) * gap + 1 for size, gap in zip(dims[2:], apart, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, sides, axis=(2, 3))
    view = view[:, :, ::down, ::right, :: apart[0], :: apart[1]]
    thin = [math.ceil(size / PLACES_SIDE) for size in view.shape[2:4]]
    view = view[:, :, :: thin[0], :: thin[1]].transpose(1, 4, 5, 0, 2, 3)
    groups = given["group"].i if "group" in given else 1
    return np.ascontiguousarray(view).reshape(groups, math.prod(dims[1:]), -1)


def _attributes(node: NodeProto) -> dict[str, AttributeProto]:
    return {attribute.name: attribute for attribute in node.attribute}
