"""Float fallback: the layers of an int8 graph that go back to float (float_fallback_rewrite.py).

A layer is int8 per channel, or float (mixed precision). The 16-bit precisions between them are left
out because both runtimes run them slower than float on a CPU: ONNX Runtime has no fused kernel for
16-bit Q/DQ or float16 convolutions, OpenVINO widens them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.operator_shape import HEAVY
from fettle.quantize import graph_session
from fettle.quantize.float_fallback_rewrite import reverted
from fettle.quantize.qdq_graph import fit_batch, int8_layers

if TYPE_CHECKING:
    from onnx import ModelProto

Floats = npt.NDArray[np.float32]

# What a float layer between int8 ones costs: a DequantizeLinear before and a QuantizeLinear behind
# it (3 µs each at 32 px), and its products at 25 a ns instead of 100. ONNX Runtime 1.32, one thread
# of an AVX512-VNNI core; only the order of layers depends on it.
BOUNDARY_US = 6.0
FLOAT_US_PER_MAC = 3e-5


@dataclass(frozen=True, slots=True)
class Int8Layer:
    """Int8 layer: what its return to float regains of the logits' squared error, and its price."""

    name: str
    regained: float
    price_us: float


def rank_layers(
    quantized: ModelProto,
    prepared: ModelProto,
    *,
    images: Floats,
    macs: dict[str, int],
) -> list[Int8Layer]:
    """Rank layers by what their return to float regains for its price, one at a time, best first.

    `images` [n, C, H, W] are training images, `macs` {layer: multiply-accumulates an image}. The
    measure is the mean squared error of the logits against the float graph's: no labels, and one
    run of the images a layer.
    """
    wanted = run(prepared, images)
    base = float(((run(quantized, images) - wanted) ** 2).mean())
    layers = []
    for name in int8_layers(quantized):
        proto = reverted(quantized, prepared, [name])
        left = float(((run(proto, images) - wanted) ** 2).mean())
        price = BOUNDARY_US + FLOAT_US_PER_MAC * macs.get(name, 0)
        layers.append(Int8Layer(name, (base - left) / max(base, 1e-30), price))
    return sorted(layers, key=lambda layer: (-layer.regained / layer.price_us, layer.name))


def macs(prepared: ModelProto, image: Floats) -> dict[str, int]:
    """Count each layer's multiply-accumulates for one image [1, C, H, W], by running it."""
    weights = {tensor.name: list(tensor.dims) for tensor in prepared.graph.initializer}
    nodes = [node for node in prepared.graph.node if node.op_type in HEAVY]
    heavy = [node for node in nodes if len(weights.get(node.input[1], ())) > 1]
    session = graph_session.watching(prepared, [node.output[0] for node in heavy])
    answers = session.run([n.output[0] for n in heavy], {session.get_inputs()[0].name: image})
    # a weight holds each output channel's products once: [out, in, kh, kw], or [in, out]
    return {
        node.name: answer.size * math.prod(weights[node.input[1]]) // answer.shape[1]
        for node, answer in zip(heavy, answers, strict=True)
    }


def fewest_layers(count: int, accept: Callable[[int], bool]) -> int | None:
    """Return the least number of layers, of 1 to `count`, that is accepted; None if none is.

    Bisects: log2(count) + 1 calls, right where more float layers never lose what fewer have won.
    """
    if count < 1 or not accept(count):
        return None
    low, high = 1, count  # high is accepted
    while low < high:
        middle = (low + high) // 2
        if accept(middle):
            high = middle
        else:
            low = middle + 1
    return high


def run(proto: ModelProto, images: Floats) -> Floats:
    """Run a graph with every optimisation on, one thread: logits [n, classes]."""
    session = graph_session.load(proto)
    name = session.get_inputs()[0].name
    batches = fit_batch(proto, [images])  # a fixed batch leaves a remainder out
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def disagreement(logits: Floats, wanted: Floats) -> float:
    """Disagreement: the share of answers [n, classes] whose top class is another."""
    return float((logits.argmax(axis=1) != wanted.argmax(axis=1)).mean())
