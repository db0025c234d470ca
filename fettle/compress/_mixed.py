"""Make layers of an int8 graph float again: which ones, and how.

The ladder here has two rungs: int8 per channel, then float. The 16-bit rungs between them are left
out because both runtimes run them slower than float on a CPU: ONNX Runtime has no fused kernel for
16-bit Q/DQ or float16 convolutions, OpenVINO widens them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fettle.compress._qdq_graph import HEAVY

Floats = npt.NDArray[np.float32]

# What a float layer between int8 ones costs: a DequantizeLinear before and a QuantizeLinear behind
# it (3 µs each at 32 px), and its products at 25 a ns instead of 100. ONNX Runtime 1.32, one thread
# of an AVX512-VNNI core; only the order of layers depends on it.
BOUNDARY_US = 6.0
FLOAT_US_PER_MAC = 3e-5


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer's return to float regains of the logits' squared error, and its price."""

    name: str
    regained: float
    price_us: float


def revert(proto: Any, *, prepared: Any, names: Collection[str]) -> None:  # Any: onnx, untyped
    """Give the named layers their float inputs and weights back, in place.

    The quantizer takes a Clip or Relu out where the next range cuts the same values off; a float
    layer that reads past that range gets it back.
    """
    if not names:
        return
    makers = {name: node for node in proto.graph.node for name in node.output}
    before = {node.name: node for node in prepared.graph.node if node.op_type in HEAVY}
    held = {tensor.name: tensor for tensor in prepared.graph.initializer}
    taken_out = {
        node.output[0]: node
        for node in prepared.graph.node
        if node.name not in {one.name for one in proto.graph.node}
    }
    for node in [n for n in proto.graph.node if n.name in names and n.name in before]:
        for at, name in enumerate(node.input):
            source = before[node.name].input[at]
            if source in held:
                node.input[at] = _keep(proto, held[source])
            elif name in makers and makers[name].op_type == "DequantizeLinear":
                inner = makers[makers[name].input[0]].input[0]
                cut = taken_out.get(inner)
                node.input[at] = inner if cut is None else _put_back(proto, cut, held)


def reverted(quantized: Any, prepared: Any, names: Collection[str]) -> Any:  # Any: onnx, untyped
    """Return a copy of the int8 graph with the named layers float."""
    proto = type(quantized)()
    proto.CopyFrom(quantized)
    revert(proto, prepared=prepared, names=frozenset(names))
    return proto


def _keep(proto: Any, tensor: Any) -> str:  # Any: onnx's, untyped
    """Add a constant of the float graph under a name of its own; return the name."""
    name = f"{tensor.name}_float"
    if name not in {one.name for one in proto.graph.initializer}:
        proto.graph.initializer.add().CopyFrom(tensor)
        proto.graph.initializer[-1].name = name
    return name


def _put_back(proto: Any, node: Any, held: dict[str, Any]) -> str:  # Any: onnx's, untyped
    """Insert a Clip or Relu that the quantizer took out; return its answer's name."""
    source, answer = node.output[0], f"{node.output[0]}_float"
    if answer not in {name for one in proto.graph.node for name in one.output}:
        at = next(at for at, one in enumerate(proto.graph.node) if source in one.output)
        copy = type(node)()
        copy.CopyFrom(node)
        copy.input[:] = [source, *(_keep(proto, held[name]) for name in node.input[1:])]
        copy.output[:] = [answer]
        proto.graph.node.insert(at + 1, copy)
    return answer


def candidates(proto: Any) -> list[str]:  # Any: onnx.ModelProto, untyped
    """Name the heavy layers that run in int8."""
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    return [
        node.name
        for node in proto.graph.node
        if node.op_type in HEAVY
        and all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])
    ]


def rank(
    quantized: Any,  # Any: onnx.ModelProto, untyped
    prepared: Any,
    *,
    images: Floats,
    macs: dict[str, int],
) -> list[Layer]:
    """Measure each layer's return to float, one at a time; the best bargain first.

    `images` [n, C, H, W] are training images, `macs` {layer: multiply-accumulates an image}. The
    measure is the mean squared error of the logits against the float graph's: no labels, and one
    run of the images a layer.
    """
    wanted = run(prepared, images)
    base = float(((run(quantized, images) - wanted) ** 2).mean())
    found = []
    for name in candidates(quantized):
        proto = reverted(quantized, prepared, [name])
        left = float(((run(proto, images) - wanted) ** 2).mean())
        price = BOUNDARY_US + FLOAT_US_PER_MAC * macs.get(name, 0)
        found.append(Layer(name, (base - left) / max(base, 1e-30), price))
    return sorted(found, key=lambda one: (-one.regained / one.price_us, one.name))


def macs(prepared: Any, image: Floats) -> dict[str, int]:  # Any: onnx.ModelProto, untyped
    """Count each layer's multiply-accumulates for one image [1, C, H, W], by running it."""
    import onnxruntime as ort

    weights = {tensor.name: list(tensor.dims) for tensor in prepared.graph.initializer}
    nodes = [node for node in prepared.graph.node if node.op_type in HEAVY]
    heavy = [node for node in nodes if len(weights.get(node.input[1], ())) > 1]
    proto = type(prepared)()
    proto.CopyFrom(prepared)
    present = {one.name for one in proto.graph.output}
    proto.graph.output.extend(
        type(proto.graph.output[0])(name=n.output[0]) for n in heavy if n.output[0] not in present
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answers = session.run([n.output[0] for n in heavy], {session.get_inputs()[0].name: image})
    # a weight holds each output channel's products once: [out, in, kh, kw], or [in, out]
    return {
        node.name: answer.size * math.prod(weights[node.input[1]]) // answer.shape[1]
        for node, answer in zip(heavy, answers, strict=True)
    }


def fewest(count: int, accept: Callable[[int], bool]) -> int | None:
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


def run(proto: Any, images: Floats) -> Floats:  # Any: onnx.ModelProto, untyped
    """Run a graph with every optimisation on, one thread: logits [n, classes]."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    size = session.get_inputs()[0].shape[0]
    step = size if isinstance(size, int) else len(images)
    starts = range(0, len(images) - step + 1, step)  # a fixed batch leaves a remainder out
    rows = [session.run(None, {name: images[at : at + step]})[0] for at in starts]
    return np.concatenate(rows)
