"""Weights in int8, activations in float: a quarter of the file, no calibration, next to no loss.

The precision between fp32 and int8. Each weight of a Conv, Gemm or MatMul is stored per output
channel as int8 with a scale, and a DequantizeLinear gives it back, once, when the runtime loads the
file (fettle/hardware/runtimes/ort.py asks for that; OpenVINO does it by itself). It runs at fp32's
speed.
"""

from __future__ import annotations

from pathlib import Path

from fettle.quantize import qdq_graph, weight_only


def apply(model: Path, out: Path) -> qdq_graph.Coverage:
    """Write the ONNX `model` with int8 weights to `out`; same inputs, same bytes.

    `quantized` of the answer counts the operators whose weight is int8. Raises ModelError when
    there is none, or the file cannot be folded.
    """
    proto, heavy, weights = weight_only.load_folded(model)
    if not weights:
        raise weight_only.no_weights_error(model, "int8", weights="constant weights", targets="w8")
    for name, rounded in weight_only.round_to_int8(heavy, weights).items():
        weight_only.store(proto, name, rounded)
    covered = qdq_graph.weight_coverage(heavy, weights)
    weight_only.write_compact(proto, out)
    return covered
