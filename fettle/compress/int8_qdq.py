"""Static int8 of an ONNX graph: QDQ form, unsigned activations, signed weights per channel (U8S8).

One file serves every runtime of the dialect "qdq_u8s8" (ONNX Runtime and OpenVINO on x86). Ranges
come from training images. It is ONNX Runtime's own quantizer, with what was found missing:

- A dead channel (all weights zero) gets the weight scale 1, so that its bias, which is all it
  answers, is rounded to steps of the input's scale (seen: 0.3 became 0.308, 0.013 became 0); one
  below 1e-35 gets subnormal scales. Such channels get one weight at the floor of the layer first.
- The answer's own Q/DQ pair is taken out: 256 steps over the logits make ties between classes,
  and the last Gemm gives float32 at no cost.
- What stays float at the image, and what is rewritten so that the rest fuses: _placement.py. Bytes
  that no runtime needs: _compact.py.
- Entropy and percentile collect each batch by itself: all at once needs memory for every
  activation of every image.

Per-tensor weights are not offered: they broke EfficientNet-Lite0 (49 % of answers kept).
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fettle.compress import Claims, _compact, _placement, _qdq_graph
from fettle.errors import ModelError
from fettle.params import Strict

Floats = npt.NDArray[np.float32]
Calibrate = Literal["minmax", "entropy", "percentile"]

OPSET = 13  # the first with scales per channel; older files (PaddlePaddle writes 11) are raised
# Ten in a million activations may be clipped, ONNX Runtime's own default. 99.99 was tried on the
# project's trial model and gave about the same answers.
PERCENTILE = 99.999

CLAIMS = Claims(
    kind="graph",
    needs_training=False,
    shrinks_parameters=False,
    shrinks_macs=False,
    keeps_shapes=True,
)


class Params(Strict):
    """How ranges are found: all of them (minmax), by entropy, or up to a percentile."""

    calibrate: Calibrate = "minmax"


def apply(
    model: Path,
    out: Path,
    *,
    batches: Iterable[Floats],
    calibrate: Calibrate,
    keep_float: Iterable[str] = (),
) -> _qdq_graph.Coverage:
    """Write the int8 form of the ONNX `model` to `out`; same inputs, same bytes.

    `batches` are normalised training images [n, C, H, W]. `keep_float` names operators that stay
    float beside those at the image (`_placement.float_head`). Raises ModelError when the graph has
    control flow, has no Conv, Gemm or MatMul with constant weights, or does not run afterwards.
    """
    import onnx

    images = list(batches)
    if not images:
        raise ValueError("calibration needs at least one batch")
    with tempfile.TemporaryDirectory(prefix="fettle-int8-") as name:
        folder = Path(name)
        with _translated(model):
            prepared = _prepare(model, folder)
        _refuse_branches(model, prepared)
        _qdq_graph.revive_dead_channels(prepared)
        _placement.name_nodes(prepared)
        _placement.pool_whole_maps(prepared)
        stays = [*_placement.float_head(prepared), *keep_float]
        onnx.save(prepared, folder / "prepared.onnx")
        fitting = _qdq_graph.fit_batch(prepared, images)
        if not fitting:
            raise _too_few(model, images)
        reader = _Reader(_qdq_graph.input_name(prepared), fitting)
        with _translated(model):
            _quantize(folder / "prepared.onnx", folder / "int8.onnx", reader, calibrate, stays)
        quantized = onnx.load(folder / "int8.onnx")
    _qdq_graph.bare_answer(quantized)
    coverage = _qdq_graph.cover(quantized)
    if not coverage.quantized:
        raise ModelError(
            f"{model.name} cannot be quantized to int8",
            got=f"no {', '.join(_qdq_graph.HEAVY)} with constant weights among its "
            f"{len(prepared.graph.node)} operators",
            rule="int8 buys time in those operators only",
            fix="drop the int8 targets (params.yaml: targets)",
        )
    _compact.compact(quantized, prepared=prepared)
    out.write_bytes(quantized.SerializeToString(deterministic=True))
    _check_runs(out, reader.batches[0])
    return coverage


def _prepare(model: Path, folder: Path) -> Any:  # Any: onnx.ModelProto, untyped
    """Fold constants and BatchNorms and infer shapes, with ONNX Runtime's basic optimiser."""
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    proto = onnx.load(model)
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if opset < OPSET:
        proto = version_converter.convert_version(proto, OPSET)
        onnx.save(proto, folder / "newer.onnx")
        model = folder / "newer.onnx"
    with _quiet():
        quant_pre_process(str(model), str(folder / "folded.onnx"), skip_symbolic_shape=True)
    return onnx.load(folder / "folded.onnx")


def _quantize(
    model: Path, out: Path, reader: _Reader, calibrate: Calibrate, stays: list[str]
) -> None:
    from onnxruntime import quantization as q

    methods = {
        "minmax": q.CalibrationMethod.MinMax,
        "entropy": q.CalibrationMethod.Entropy,
        "percentile": q.CalibrationMethod.Percentile,
    }
    with _quiet():
        q.quantize_static(
            str(model),
            str(out),
            reader,
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=methods[calibrate],
            nodes_to_exclude=stays,
            extra_options={
                "CalibStridedMinMax": 1,  # for every method: collect batch by batch
                "CalibTensorRangeSymmetric": False,  # percentile's default wastes half of uint8
                "CalibPercentile": PERCENTILE,
            },
        )


class _Reader:
    """Feed batches to the quantizer by its own protocol: `set_range`, then `get_next` to None."""

    def __init__(self, name: str, batches: list[Floats]) -> None:
        self.name, self.batches = name, batches
        self._left = iter(batches)

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(self.batches[start_index:end_index])

    def get_next(self) -> dict[str, Floats] | None:
        batch = next(self._left, None)
        return None if batch is None else {self.name: batch}


def _refuse_branches(model: Path, proto: Any) -> None:  # Any: onnx.ModelProto, untyped
    found = _qdq_graph.branches(proto)
    if found:
        raise ModelError(
            f"{model.name} cannot be quantized to int8: it branches on its data",
            got=_show(found),
            rule="the int8 ranges are fixed before the run, so every image must take the same path",
            fix="drop the int8 targets (params.yaml: targets), or export the model without "
            "these operators",
        )


def _too_few(model: Path, images: list[Floats]) -> ModelError:
    return ModelError(
        f"{model.name} cannot be quantized to int8: too few images to calibrate on",
        got=f"{sum(len(batch) for batch in images)}",
        rule="the model takes one batch size only, and it is larger",
        fix="raise export.calibration_images (params.yaml), or export the model with a free batch",
    )


def _check_runs(path: Path, batch: Floats) -> None:
    """Raise ModelError when the int8 file does not load, does not run, or answers no numbers."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with _translated(path):
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        answer = session.run(None, {session.get_inputs()[0].name: batch})[0]
    if not np.isfinite(answer).all():
        raise ModelError(
            f"{path.name}: the int8 form answers with values that are no numbers",
            got=f"{int((~np.isfinite(answer)).sum())} of {answer.size}",
            rule="every logit is finite",
            fix="look for weights that are not finite in the model, or drop the int8 targets",
        )


def _show(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count}x)" for name, count in sorted(counts.items()))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's progress prints off stdout; a numpy warning means a bad scale: raise."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@contextlib.contextmanager
def _translated(model: Path) -> Iterator[None]:
    """Turn whatever the quantizer raises into ModelError, with the operators it had to handle."""
    try:
        yield
    except Exception as err:  # its errors share no base: ValueError, KeyError, pybind classes…
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        operators = _qdq_graph.operators(model)
        raise ModelError(
            f"{model.name} cannot be quantized to int8",
            got=f"{type(err).__name__}: {(lines or ['no message'])[0][:300]}",
            rule=f"its operators are {operators}" if operators else None,
            fix="drop the int8 targets (params.yaml: targets), or export the model again with "
            "fixed image sizes and a newer opset",
        ) from err
