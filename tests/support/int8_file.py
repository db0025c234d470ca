"""Int8 file of a tiny graph, by one calibration method: no layer is given back by itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fettle.quantize import qdq_graph, static_int8
from fettle.quantize.activation_ranges import Calibrate
from fettle.quantize.ort_quantizer import WeightBits


def write(
    model: Path,
    out: Path,
    *,
    batches: Iterable[npt.NDArray[np.float32]],
    calibrate: Calibrate = "minmax",
    keep_float: Iterable[str] = (),
    weight_bits: WeightBits = 8,
) -> qdq_graph.Coverage:
    """Write the int8 form of the ONNX `model` to `out`."""
    drafts = static_int8.drafts(
        model, batches=batches, methods=[calibrate], weight_bits=weight_bits
    )
    return static_int8.finish(drafts[calibrate], out, keep_float=keep_float)
