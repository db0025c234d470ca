"""ONNX Runtime's quantizer, driven: fold the graph, write Q/DQ pairs by given ranges."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fettle.errors import ModelError
from fettle.quantize import activation_ranges, qdq_graph
from fettle.quantize.activation_ranges import Calibrate

if TYPE_CHECKING:
    from onnx import ModelProto

WeightBits = Literal[7, 8]

OPSET = 13  # the first with scales per channel; older files (PaddlePaddle writes 11) are raised


def prepare(model: Path, folder: Path, *, opset: int = OPSET) -> ModelProto:
    """Fold constants and BatchNorms and infer shapes, with ONNX Runtime's basic optimiser.

    A file below `opset` is raised to it.
    """
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    proto = onnx.load(model)
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), opset)
    if version < opset:
        proto = version_converter.convert_version(proto, opset)
        onnx.save(proto, folder / "newer.onnx")
        model = folder / "newer.onnx"
    with quiet():
        quant_pre_process(str(model), str(folder / "folded.onnx"), skip_symbolic_shape=True)
    return onnx.load(folder / "folded.onnx")


def quantize(
    model: Path,
    out: Path,
    ranges: Path,
    calibrate: Calibrate,
    stays: list[str],
    whole: list[str],
    weight_bits: WeightBits,
) -> None:
    """Write the QDQ form of `model` to `out`; the nodes that `stays` names are left alone.

    Weights get a scale per channel, those that `whole` names one for all channels. `ranges` is the
    cache file that `activation_ranges.collect` wrote for `calibrate`.
    """
    from onnxruntime import quantization as q

    with quiet():
        q.quantize_static(
            str(model),
            str(out),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=weight_bits == 7,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibration_cache_path=ranges,
            calibrate_method=activation_ranges.method(calibrate),
            nodes_to_exclude=stays,
            extra_options={
                "TensorQuantOverrides": {
                    name: [{"quant_type": q.QuantType.QInt8, "symmetric": True}] for name in whole
                }
            },
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the quantizer's progress prints off stdout; a numpy warning means a bad scale: raise."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@contextlib.contextmanager
def translated(model: Path) -> Iterator[None]:
    """Turn whatever the quantizer raises into ModelError, with the operators it had to handle."""
    try:
        yield
    except Exception as err:  # its errors share no base: ValueError, KeyError, pybind classes…
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        operators = qdq_graph.operators(model)
        raise ModelError(
            f"{model.name} cannot be quantized to int8",
            got=f"{type(err).__name__}: {(lines or ['no message'])[0][:300]}",
            rule=f"its operators are {operators}" if operators else None,
            fix="drop the int8 targets (params.yaml: targets), or export the model again with "
            "fixed image sizes and a newer opset",
        ) from err
