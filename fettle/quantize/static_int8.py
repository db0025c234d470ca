"""Static int8 of an ONNX graph: QDQ form, unsigned activations, signed weights per channel (U8S8).

One file serves every runtime of a dialect (int8_dialects.py). Ranges come from training images. It
is ONNX Runtime's own quantizer, with what was found missing:

- A dead channel (all weights zero) gets the weight scale 1, so that its bias, which is all it
  answers, is rounded to steps of the input's scale (seen: 0.3 became 0.308, 0.013 became 0); one
  below 1e-35 gets subnormal scales. Such channels get one weight at the floor of the layer first.
- The answer's own Q/DQ pair is taken out, but for NPUs: 256 steps over the logits make ties
  between classes, and the last Gemm gives float32 at no cost.
- Every convolution's bias takes the mean error of the rounding off: bias_correction.py.
- What stays float at the image, and what is rewritten so that the rest fuses:
  operator_placement.py. Bytes that no runtime needs: graph_cleanup.py.
- Ranges by every method asked for come from one run of the images, batch by batch:
activation_ranges.py.

Per-tensor weights are not offered: they broke EfficientNet-Lite0 (49 % of answers kept).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle.errors import ModelError
from fettle.quantize import (
    activation_ranges,
    bias_correction,
    float_fallback_rewrite,
    graph_cleanup,
    graph_session,
    int8_dialects,
    int8_layout,
    per_channel_rounding,
    qdq_graph,
)
from fettle.quantize.activation_ranges import Calibrate
from fettle.quantize.int8_dialects import Int8Dialect
from fettle.quantize.ort_quantizer import QdqForm, WeightBits, quantize, quiet, translated

if TYPE_CHECKING:
    from onnx import ModelProto

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Draft:
    """A quantized graph before it is made compact, and the float graph it was made from.

    Both are onnx.ModelProto with the same names; `batch` is what it was calibrated with first.
    """

    name: str
    prepared: ModelProto
    quantized: ModelProto
    batch: Floats


def drafts(
    model: Path,
    *,
    batches: Iterable[Floats],
    methods: Sequence[Calibrate],
    weight_bits: WeightBits = 8,
    dialect: Int8Dialect = int8_dialects.CPU,
) -> dict[Calibrate, Int8Draft]:
    """Quantize the ONNX `model` once a method, all of one calibration run; same inputs, same bytes.

    `batches` are normalised training images [n, C, H, W]. `weight_bits` 7 keeps sums of two
    products within 16 bits, for CPUs without VNNI (fettle/hardware/vnni_emulation.py). Raises
    ModelError when the graph has control flow, or cannot be quantized.
    """
    import onnx

    images = list(batches)
    if not images:
        raise ValueError("calibration needs at least one batch")
    with tempfile.TemporaryDirectory(prefix="fettle-int8-") as name:
        folder = Path(name)
        layout = int8_layout.lay_out(model, folder, dialect=dialect)
        prepared = layout.prepared
        fitting = qdq_graph.fit_batch(prepared, images)
        if not fitting:
            raise _too_few(model, images)
        # behind a pair of their own, weights stay float: nothing is rounded here
        whole = [] if dialect.only_before else per_channel_rounding.round_convolutions(prepared)
        form = QdqForm(dialect=dialect, stays=layout.stays, whole=whole, weight_bits=weight_bits)
        seen = bias_correction.first_batches(fitting)
        means = bias_correction.ChannelMeans(prepared)
        with translated(model), quiet():
            ranges = activation_ranges.collect(
                prepared,
                folder,
                batches=fitting,
                methods=methods,
                shown=len(seen),
                on_batch=means.add,
            )
        by_method = {}
        for method in methods:
            written = folder / f"{method}.onnx"
            with translated(model):
                quantize(layout.source, written, ranges[method], method, form)
            quantized = onnx.load(written)
            per_channel_rounding.quantize(
                quantized, prepared=prepared, names=whole, bits=weight_bits
            )
            if not dialect.answer_pair:
                qdq_graph.strip_output_pairs(quantized)
            with translated(model):
                bias_correction.correct(
                    quantized, prepared=prepared, means=means.of_layers(), batches=seen
                )
            by_method[method] = Int8Draft(
                name=model.name, prepared=prepared, quantized=quantized, batch=fitting[0]
            )
    return by_method


def finish(draft: Int8Draft, out: Path, *, keep_float: Iterable[str] = ()) -> qdq_graph.Coverage:
    """Make the named layers float again, write the compact file, and run it once.

    `keep_float` names operators that stay float beside those at the image
    (`operator_placement.float_head`). Raises ModelError when the graph has no Conv, Gemm or MatMul
    with constant weights, or does not run.
    """
    proto = float_fallback_rewrite.reverted(draft.quantized, draft.prepared, frozenset(keep_float))
    coverage = qdq_graph.operator_coverage(proto)
    int8_layout.refuse_no_layers(draft.name, draft.prepared, coverage)
    graph_cleanup.compact(proto)
    out.write_bytes(proto.SerializeToString(deterministic=True))
    _check_runs(out, proto, draft.batch)
    return coverage


def _too_few(model: Path, images: list[Floats]) -> ModelError:
    return ModelError(
        f"{model.name} cannot be quantized to int8: too few images to calibrate on",
        got=f"{sum(len(batch) for batch in images)}",
        rule="the model takes one batch size only, and it is larger",
        fix="raise export.calibration_images (params.yaml), or export the model with a free batch",
    )


def _check_runs(path: Path, proto: ModelProto, batch: Floats) -> None:
    """Raise ModelError when the int8 file does not load, does not run, or answers no numbers."""
    with translated(path):
        session = graph_session.load(proto)
        answer = session.run(None, {session.get_inputs()[0].name: batch})[0]
    if not np.isfinite(answer).all():
        raise ModelError(
            f"{path.name}: the int8 form answers with values that are no numbers",
            got=f"{int((~np.isfinite(answer)).sum())} of {answer.size}",
            rule="every logit is finite",
            fix="look for weights that are not finite in the model, or drop the int8 targets",
        )
