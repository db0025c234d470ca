"""ONNX Runtime's quantizer, driven: fold the graph, write Q/DQ pairs by given ranges."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fettle.errors import ModelError
from fettle.quantize import activation_ranges, int8_dialects, qdq_graph
from fettle.quantize.activation_ranges import Calibrate
from fettle.quantize.int8_dialects import Int8Dialect

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


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqForm:
    """Form of a QDQ file: its dialect; nodes left alone; weights that get one scale for all
    channels, not one each; bits of a weight.
    """

    dialect: Int8Dialect = int8_dialects.CPU
    stays: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    weight_bits: WeightBits = 8


def quantize(model: Path, out: Path, ranges: Path, calibrate: Calibrate, form: QdqForm) -> None:
    """Write the QDQ form of `model` to `out`.

    `ranges` is the cache file that `activation_ranges.collect` wrote for `calibrate`.
    """
    from onnxruntime import quantization as q

    symmetric = form.dialect.symmetric
    with quiet():
        q.quantize_static(
            str(model),
            str(out),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=form.weight_bits == 7,
            activation_type=q.QuantType.QInt8 if symmetric else q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibration_cache_path=ranges,
            calibrate_method=activation_ranges.method(calibrate),
            nodes_to_exclude=form.stays,
            op_types_to_quantize=list(form.dialect.only_before) or None,
            extra_options={
                "TensorQuantOverrides": {
                    name: [{"quant_type": q.QuantType.QInt8, "symmetric": True}]
                    for name in form.whole
                },
                **(_only_before(form.dialect) if form.dialect.only_before else {}),
                **({"ActivationSymmetric": True} if symmetric else {}),
            },
        )


def _only_before(dialect: Int8Dialect) -> dict[str, bool | list[str]]:
    """Say to the quantizer: pairs before these operators alone, weights behind one, float biases.

    With a pair behind them too, the one behind a convolution lands before its Clip: 82 % of
    EfficientNet-Lite0's answers kept instead of 97.
    """
    return {
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
        "OpTypesToExcludeOutputQuantization": list(dialect.only_before),
    }


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
