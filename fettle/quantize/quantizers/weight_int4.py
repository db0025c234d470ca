"""Weights in int4, activations in float: an eighth of the file, a few sensitive layers in int8.

The precision below weight_int8. Two weights share a byte (opset 21), with a scale per output
channel, and a DequantizeLinear gives them back once, when the runtime loads the file: it runs at
fp32's speed. Roundings make up for one another (fettle/quantize/gptq.py). Layers that lose most a
byte saved stay int8, the fewest that keep the bounds: on training images that nothing was fitted
on, at most `disagreement_max` of the answers change, and the logits' squared error grows by no more
than ERROR_TIMES what int8 weights leave, or ERROR_SHARE of its variance. docs/decisions/0012.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fettle.errors import ModelError
from fettle.quantize import float_fallback, gptq, qdq_graph, weight_only
from fettle.quantize.ort_quantizer import translated
from fettle.quantize.weight_only import Floats, RoundedWeight

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET, IR_VERSION = 21, 10  # the first with int4
RANKED_IMAGES = 64  # for the order of layers only: 0.13 s a layer of EfficientNet-Lite0 at 32 px
# What int4 may add to the logits' squared error: half of what int8 weights leave, or this share of
# the logits' variance. Without such a bound the nets of docs/decisions/0012 changed 3.1, 1.5 and
# 1.3 % of their answers on test though training images changed less; with it 1.2, 0.1 and 0.4 %.
ERROR_TIMES, ERROR_SHARE = 0.5, 3e-3


class Int4Facts(qdq_graph.CoverageFacts):
    """Int4 facts, as export's manifest says them."""

    kept_int8: list[str]
    disagreement: float
    disagreement_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """Stored weights: `coverage.quantized` counts the weights in int4 or int8.

    `kept_int8` names those in int8; `disagreement` is the share of answers that differ from the
    float graph's on `images` held-out images.
    """

    coverage: qdq_graph.Coverage
    kept_int8: tuple[str, ...]
    disagreement: float
    images: int

    def facts(self) -> Int4Facts:
        """Return what export's manifest says of it."""
        return {
            "kept_int8": list(self.kept_int8),
            "disagreement": self.disagreement,
            "disagreement_images": self.images,
            **self.coverage.facts(),
        }


def apply(
    model: Path, out: Path, *, batches: list[Floats], held_out: Floats, disagreement_max: float
) -> StoredWeights:
    """Write the ONNX `model` with int4 weights to `out`; same inputs, same bytes.

    `batches` and `held_out` are normalised training images [n, C, H, W]. Raises ModelError when
    there is no weight to store, the bounds leave none in int4, or the file cannot be folded.
    """
    proto, heavy, weights = weight_only.load_folded(model, opset=OPSET)
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    int8 = weight_only.round_to_int8(heavy, weights)
    with translated(model):
        int4 = _in_int4(proto, heavy, int8, weights, qdq_graph.fit_batch(proto, batches))
    chosen, disagreement = _choose(model, proto, int8, int4, held_out, disagreement_max)
    stored = StoredWeights(
        coverage=qdq_graph.weight_coverage(heavy, int8),
        kept_int8=tuple(n.name for n in heavy if n.input[1] in int8.keys() - chosen.keys()),
        disagreement=disagreement,
        images=len(held_out),
    )
    for weight, rounded in int8.items():
        weight_only.store(proto, weight, chosen.get(weight, rounded), packed=weight in chosen)
    weight_only.write_compact(proto, out)
    return stored


def _in_int4(
    proto: ModelProto,
    heavy: Sequence[NodeProto],
    int8: Mapping[str, RoundedWeight],
    weights: Mapping[str, TensorProto],
    batches: list[Floats],
) -> dict[str, RoundedWeight]:
    """Round every weight that one layer reads, and that can be taken apart: {weight: rounded}."""
    from onnx import numpy_helper

    readers = Counter(node.input[1] for node in heavy)
    dims = {name: tuple(weights[name].dims) for name in int8}
    nodes = [
        node
        for node in heavy
        if readers[node.input[1]] == 1
        and node.input[1] in int8
        and gptq.supports_operator(node, dims[node.input[1]])
    ]
    if not nodes:
        return {}
    moments = gptq.input_second_moments(proto, nodes, dims, batches)
    rounded = {}
    for node in nodes:
        weight, axis = node.input[1], int8[node.input[1]].axis
        array = np.moveaxis(np.asarray(numpy_helper.to_array(weights[weight])), axis, 0)
        rows, scales = gptq.quantize(array.reshape(len(array), -1), moments.pop(node.name))
        values = np.moveaxis(rows.reshape(array.shape), 0, axis)
        rounded[weight] = RoundedWeight(np.ascontiguousarray(values), scales, axis)
    return rounded


def _choose(
    model: Path,
    proto: ModelProto,
    int8: Mapping[str, RoundedWeight],
    int4: Mapping[str, RoundedWeight],
    images: Floats,
    disagreement_max: float,
) -> tuple[dict[str, RoundedWeight], float]:
    """Keep the fewest layers int8 that hold both bounds: the weights in int4, the answers changed.

    Raises ModelError when that leaves none in int4.
    """
    if not int4:
        which = "constant weights of its own"
        raise weight_only.no_weights_error(model, "int4", weights=which, targets="w4")
    wanted = float_fallback.run(proto, images)
    variance = max(float(wanted.var()), 1e-30)
    plain = _error(float_fallback.run(_widened(proto, int8), images), wanted) / variance
    limit = max(ERROR_TIMES * plain, ERROR_SHARE)
    ranked = _ranked(proto, int8, int4, images[:RANKED_IMAGES])
    seen: dict[int, tuple[float, float]] = {}

    def accept(count: int) -> bool:
        if count not in seen:
            kept = {name: int4[name] for name in ranked[count:]}
            logits = float_fallback.run(_widened(proto, {**int8, **kept}), images)
            seen[count] = (
                float_fallback.disagreement(logits, wanted),
                _error(logits, wanted) / variance - plain,
            )
        changed, added = seen[count]
        return changed <= disagreement_max and added <= limit

    # the last one is kept int4: without any it is weight_int8's file
    fewest = 0 if accept(0) else float_fallback.fewest_layers(len(ranked) - 1, accept)
    if fewest is None:
        changed, added = seen[max(seen)]
        raise ModelError(
            f"{model.name} cannot be stored in int4 within the bounds",
            got=f"{changed:.1%} of {len(images)} answers change and the logits' squared error "
            f"grows by {added:.2%} of their variance, {max(seen)} of {len(ranked)} layers int8",
            rule=f"at most {disagreement_max:.1%} may (params.yaml: export.disagreement_max), and "
            f"{limit:.2%}",
            fix="raise export.disagreement_max or export.calibration_images, or take w8 for the w4 "
            "targets (params.yaml: targets)",
        )
    return {name: int4[name] for name in ranked[fewest:]}, seen[fewest][0]


def _ranked(
    proto: ModelProto,
    int8: Mapping[str, RoundedWeight],
    int4: Mapping[str, RoundedWeight],
    images: Floats,
) -> list[str]:
    """Order the weights by the error that a byte saved costs, all others int8; the worst first."""
    wanted = float_fallback.run(proto, images)
    plain = _error(float_fallback.run(_widened(proto, int8), images), wanted)
    costs = {}
    for name, rounded in int4.items():
        logits = float_fallback.run(_widened(proto, {**int8, name: rounded}), images)
        costs[name] = (_error(logits, wanted) - plain) / rounded.values.size
    return sorted(costs, key=lambda name: (-costs[name], name))


def _widened(proto: ModelProto, weights: Mapping[str, RoundedWeight]) -> ModelProto:
    """Return a copy of the float graph that computes with rounded weights."""
    from onnx import numpy_helper

    copy = type(proto)()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name].widened(), tensor.name))
    return copy


def _error(logits: Floats, wanted: Floats) -> float:
    return float(((logits - wanted) ** 2).mean())
