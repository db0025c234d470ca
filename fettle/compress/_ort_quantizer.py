"""Drive ONNX Runtime's quantizer: fold the graph, find ranges, write Q/DQ pairs."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fettle.compress import _qdq_graph
from fettle.errors import ModelError

Floats = npt.NDArray[np.float32]
Calibrate = Literal["minmax", "entropy", "percentile"]
WeightBits = Literal[7, 8]

OPSET = 13  # the first with scales per channel; older files (PaddlePaddle writes 11) are raised
# Ten in a million activations may be clipped, ONNX Runtime's own default. 99.99 was tried on the
# project's trial model and gave about the same answers.
PERCENTILE = 99.999


def prepare(model: Path, folder: Path) -> Any:  # Any: onnx.ModelProto, untyped
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


def quantize(
    model: Path,
    out: Path,
    reader: Reader,
    calibrate: Calibrate,
    stays: list[str],
    weight_bits: WeightBits,
) -> None:
    """Write the QDQ form of `model` to `out`; the nodes that `stays` names are left alone."""
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
            reduce_range=weight_bits == 7,
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


class Reader:
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
        operators = _qdq_graph.operators(model)
        raise ModelError(
            f"{model.name} cannot be quantized to int8",
            got=f"{type(err).__name__}: {(lines or ['no message'])[0][:300]}",
            rule=f"its operators are {operators}" if operators else None,
            fix="drop the int8 targets (params.yaml: targets), or export the model again with "
            "fixed image sizes and a newer opset",
        ) from err
