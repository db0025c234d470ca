"""Layer divergence: the first layer at which two files of one network differ in their answers.

Both files are run with the answers of every Conv, Gemm and MatMul added as outputs; layers are
matched by their names. What is compared is the signal over the error of a layer's answers, in dB:

    10 log10(sum(reference^2) / sum((candidate - reference)^2))

Int8 loses a little at each layer; a layer diverges where the ratio falls below `FLOOR_DB` and by
more than `STEP_DB` under the worst of what came before it. Sound int8 kept 6 dB and more at every
layer (EfficientNet-Lite0 on digits, 97 % of answers kept; 19 dB pruned to 0.25); a layer whose
channels are in wrong order has 0 and less.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.errors import ModelError
from fettle.operator_shape import HEAVY

if TYPE_CHECKING:
    from onnx import ModelProto

Floats = npt.NDArray[np.float32]

FLOOR_DB = 3.0
STEP_DB = 6.0
SAME_DB = 200.0  # what equal arrays are given


@dataclass(frozen=True, slots=True)
class DivergedLayer:
    """One layer's signal over error, in dB; `diverges` marks the first one that diverges."""

    name: str
    ratio_db: float
    diverges: bool = False


def compare_files(reference: Path, candidate: Path, batch: Floats) -> list[DivergedLayer]:
    """Compare two files layer by layer on `batch` [n, C, H, W], as written: nothing is fused.

    Raises ModelError when they share no named layer, or one does not run.
    """
    return _mark_divergence(_compare(_layers(reference, batch), _layers(candidate, batch)))


def compare_runtime(candidate: Path, batch: Floats) -> list[DivergedLayer]:
    """Compare one file as written with what ONNX Runtime makes of it, fused, on `batch`.

    The int8 answers of each layer are compared, since only those exist after fusion.
    """
    written = _layers(candidate, batch, quantized=True)
    return _mark_divergence(
        _compare(written, _layers(candidate, batch, quantized=True, fused=True))
    )


def describe_divergence(layers: list[DivergedLayer]) -> str | None:
    """Divergence in a sentence: where the files begin to differ, or None."""
    position = next((index for index, layer in enumerate(layers) if layer.diverges), None)
    if position is None:
        return None
    before = min((layer.ratio_db for layer in layers[:position]), default=None)
    kept = "it is the first" if before is None else f"those before it keep {before:.0f} dB and more"
    return (
        f"the first layer that diverges is '{layers[position].name}' "
        f"({layers[position].ratio_db:.0f} dB of signal over error; {kept})"
    )


def _compare(left: dict[str, Floats], right: dict[str, Floats]) -> list[DivergedLayer]:
    shared = [name for name in left if name in right]
    if not shared:
        raise ModelError(
            "two versions of a model cannot be compared layer by layer",
            got=f"{len(left)} and {len(right)} named layers, none in common",
            rule=f"{', '.join(HEAVY)} keep their names",
            fix="compare files that were made from one another",
        )
    return [DivergedLayer(name, ratio_db(left[name], right[name])) for name in shared]


def ratio_db(reference: Floats, candidate: Floats) -> float:
    """Return the signal over the error in dB, at most SAME_DB; -SAME_DB for no numbers."""
    ours, theirs = reference.astype(np.float64), candidate.astype(np.float64)
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return -SAME_DB
    noise, signal = float(((theirs - ours) ** 2).sum()), float((ours**2).sum())
    if noise == 0:
        return SAME_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-30) / noise), -SAME_DB, SAME_DB))


def _mark_divergence(layers: list[DivergedLayer]) -> list[DivergedLayer]:
    """Mark the first layer that falls below the floor by a step."""
    lowest = SAME_DB
    for index, layer in enumerate(layers):
        if layer.ratio_db < FLOOR_DB and layer.ratio_db < lowest - STEP_DB:
            return [
                *layers[:index],
                DivergedLayer(layer.name, layer.ratio_db, diverges=True),
                *layers[index + 1 :],
            ]
        lowest = min(lowest, layer.ratio_db)
    return layers


def _layers(
    model: Path, batch: Floats, *, quantized: bool = False, fused: bool = False
) -> dict[str, Floats]:
    """Run a file and return {layer name: its answers}, in the order of the file."""
    import onnx
    import onnxruntime as ort

    proto = onnx.load(model)
    wanted = _quantized_answers(proto) if quantized else _answers(proto)
    present = {output.name for output in proto.graph.output}
    for name in wanted.values():
        if name not in present:
            proto.graph.output.add().name = name
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if fused else level.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        answers = session.run(list(wanted.values()), {session.get_inputs()[0].name: batch})
    except Exception as err:  # ONNX Runtime's errors share no base
        raise ModelError(
            f"{model.name} does not run with its layers' answers as outputs",
            got=str(err).strip().split("\n", 1)[0][:300],
            fix="check the file with onnx's `check-model`",
        ) from err
    return dict(zip(wanted, answers, strict=True))


def _answers(proto: ModelProto) -> dict[str, str]:
    return {n.name: n.output[0] for n in proto.graph.node if n.op_type in HEAVY and n.name}


def _quantized_answers(proto: ModelProto) -> dict[str, str]:
    """Return the QuantizeLinear behind each layer, or its own answer where there is none."""
    readers = {name: node for node in proto.graph.node for name in node.input}
    names = {}
    for name, answer in _answers(proto).items():
        reader = readers.get(answer)
        quantizes = reader and reader.op_type == "QuantizeLinear"
        names[name] = reader.output[0] if reader and quantizes else answer
    return names
