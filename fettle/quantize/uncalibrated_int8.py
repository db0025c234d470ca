"""Uncalibrated int8: the kernels of a static int8 file, to be timed and not to be believed.

The layout is static_int8's, the ranges are noise's: a latency does not depend on them. So nothing
of what makes an int8 file exact is reached from here (calibration, bias correction, float
fallback), and no change of it makes a latency that was measured stale.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fettle.quantize import graph_cleanup, graph_session, int8_layout, qdq_graph
from fettle.quantize.float_bias import float_biases
from fettle.quantize.int8_layout import Int8Layout
from fettle.quantize.ort_quantizer import QdqForm, quantize, quiet, translated

Floats = npt.NDArray[np.float32]


def apply(model: Path, out: Path, *, noise: Floats) -> None:
    """Write an int8 form of the ONNX `model` to `out`, ranges from `noise` [n, C, H, W].

    Raises ModelError when the graph has control flow, has no Conv, Gemm or MatMul with constant
    weights, or cannot be quantized.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="fettle-int8-") as name:
        folder = Path(name)
        layout = int8_layout.lay_out(model, folder)
        written = folder / "int8.onnx"
        with translated(model), quiet():
            ranges = _ranges(layout, noise, folder / "ranges.json")
            quantize(layout.source, written, ranges, "minmax", QdqForm(stays=layout.stays))
        proto = onnx.load(written)
    coverage = qdq_graph.operator_coverage(proto)
    int8_layout.refuse_no_layers(model.name, layout.prepared, coverage)
    qdq_graph.strip_output_pairs(proto)
    float_biases(proto, layout.prepared)
    graph_cleanup.drop_unused(proto)  # the pairs of the biases that were there
    onnx.save(proto, out)


def _ranges(layout: Int8Layout, noise: Floats, path: Path) -> Path:
    """Write the least and largest value of every tensor, as the quantizer reads them."""
    from onnxruntime.quantization import CalibrationMethod, calibrate

    names = [name for node in layout.prepared.graph.node for name in node.output if name]
    session = graph_session.watching(layout.prepared, names)
    source = qdq_graph.input_name(layout.prepared)
    values = dict(zip(names, session.run(names, {source: noise}), strict=True)) | {source: noise}
    ends = {
        name: (np.asarray(array.min()), np.asarray(array.max()))
        for name, array in values.items()
        if array.dtype == np.float32
    }
    kind = CalibrationMethod.MinMax
    calibrate.save_tensors_data(calibrate.TensorsData(kind, ends), path)
    return path
