"""Int8 diagnosis: where a file's answers diverge from the float model's, and what a CPU
without VNNI would answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fettle.data.split_reader import Images
from fettle.errors import ModelError
from fettle.evaluation import accuracy_statistics, layer_divergence
from fettle.facts.evaluate_facts import WithoutVnni
from fettle.hardware import vnni_emulation
from fettle.measure import Measure
from fettle.models import export_onnx
from fettle.preprocessing import Floats

# The emulator took 4 s for 0.7e9 multiply-accumulates (EfficientNet-Lite0 pruned to 0.25, 179
# images): about 10 s are spent at most. Fewer images than the least say nothing.
EMULATED_MACS_MAX = 1.5e9
EMULATED_IMAGES = (32, 200)
AGREES_MIN = 0.95  # of the emulator's exact answers with the runtime's: else it is not believed
LADDER_IMAGES = 64
LAYERS_NAMED = 3


def localise_divergence(plain: Path, entry: Path, batch: Floats, torch_logits: Floats) -> str:
    """Localise the divergence: the first step, and in it the first layer, where answers differ.

    `plain` is the fp32 ONNX, `entry` the candidate, `torch_logits` PyTorch's answers to `batch`.
    """
    parity = export_onnx.compare_logits(export_onnx.run_onnx(plain, batch), torch_logits)
    if parity.relative > export_onnx.TOLERANCE:
        return f"the fp32 ONNX already differs from PyTorch, by {parity.max_abs:.3g} in a logit"
    if entry.suffix != ".onnx":
        return "its layers cannot be compared one by one: it is no ONNX"
    part = batch[:LADDER_IMAGES]
    try:
        climbed = layer_divergence.describe_divergence(
            layer_divergence.compare_files(plain, entry, part)
        )
        if climbed:
            return f"from fp32 ONNX to this file, {climbed}"
        climbed = layer_divergence.describe_divergence(
            layer_divergence.compare_runtime(entry, part)
        )
    except ModelError as err:
        return f"its layers cannot be compared one by one: {err}"
    if climbed:
        return f"from this file to what the runtime makes of it, {climbed}"
    return "no single layer diverges: each loses a little"


def accuracy_without_vnni(
    entry: Path, *, images: Images, batch: Floats, logits: Floats, macs: int
) -> tuple[WithoutVnni, Mapping[str, Measure]]:
    """Score the int8 file as an x86 CPU without VNNI answers, on the first validation images.

    `batch` and `logits` are those of the first of `images`, in order, as many as are to be scored
    at most. The facts say why where nothing is measured.
    """
    least, most = EMULATED_IMAGES
    count = min(most, len(batch), int(EMULATED_MACS_MAX / max(1, macs)))
    if count < least:
        return WithoutVnni(reason=f"not measured: only {count} images, it takes {least}"), {}
    try:
        emulated = vnni_emulation.emulate(entry, batch[:count])
    except ModelError as err:
        return WithoutVnni(reason=f"not measured: {err}"), {}
    labels, ours = images.labels[:count], logits[:count]
    agrees = float((emulated.exact.argmax(axis=1) == ours.argmax(axis=1)).mean())
    if agrees < AGREES_MIN:
        reason = f"not measured: the emulator agrees on {agrees:.1%} of images only"
        return WithoutVnni(reason=reason), {}
    drop = accuracy_statistics.drop("accuracy", emulated.exact, emulated.saturated, labels)
    ranked = sorted(emulated.layers.items(), key=lambda item: (-item[1], item[0]))
    loses = (drop.low or 0) > 0
    facts = WithoutVnni(
        images=count,
        agreement=float((emulated.saturated.argmax(axis=1) == ours.argmax(axis=1)).mean()),
        layers=dict(ranked[:LAYERS_NAMED]),
        loses=loses,
        reason=(
            f"on x86 without VNNI it loses {drop.value:.1%} of accuracy ({drop.low:.1%} to "
            f"{drop.high:.1%}, n = {count}); export.weight_bits: 7 avoids that"
            if loses
            else f"on x86 without VNNI no loss is shown ({drop.value:.1%}, n = {count})"
        ),
    )
    measures = {
        "accuracy_without_vnni": accuracy_statistics.accuracy(emulated.saturated, labels),
        "accuracy_drop_without_vnni": drop,
    }
    return facts, measures
