"""Linear layers in int8, the range of their input found at each run: no calibration images.

For networks whose time is in linear layers. Convolutions stay float: ONNX Runtime 1.32 has no fast
integer form of them (EfficientNet-Lite0, 32 px, one thread: 0.86 ms became 6.5 to 9.4 with
ConvInteger, pruned to 0.25 0.17 ms became 1.4). Weights are unsigned: ONNX Runtime's U8U8 kernels
do not saturate on x86 without VNNI.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from fettle.errors import ModelError
from fettle.operator_shape import HEAVY
from fettle.quantize import qdq_graph
from fettle.quantize.ort_quantizer import prepare, translated

LINEAR = ("Gemm", "MatMul")
INTEGER = "MatMulInteger"


def apply(model: Path, out: Path) -> qdq_graph.Coverage:
    """Write the ONNX `model` with linear layers in int8 to `out`; same inputs, same bytes.

    Raises ModelError when no linear layer has constant weights, or the file cannot be folded.
    """
    import onnx
    from onnxruntime import quantization as q

    with tempfile.TemporaryDirectory(prefix="fettle-int8-") as name, translated(model):
        folder = Path(name)
        onnx.save(prepare(model, folder), folder / "prepared.onnx")
        with contextlib.redirect_stdout(io.StringIO()):
            q.quantize_dynamic(
                str(folder / "prepared.onnx"),
                str(folder / "int8.onnx"),
                op_types_to_quantize=list(LINEAR),
                per_channel=True,
                weight_type=q.QuantType.QUInt8,
            )
        proto = onnx.load(folder / "int8.onnx")
    kinds = [node.op_type for node in proto.graph.node]
    if INTEGER not in kinds:
        raise ModelError(
            f"{model.name} has no linear layer to compute in int8",
            got=f"no {' or '.join(LINEAR)} with constant weights",
            rule="convolutions stay float: their integer form is slower",
            fix="drop the dynamic_int8 targets (params.yaml: targets)",
        )
    out.write_bytes(proto.SerializeToString(deterministic=True))
    left = {kind: kinds.count(kind) for kind in HEAVY if kind in kinds}
    return qdq_graph.Coverage(quantized={INTEGER: kinds.count(INTEGER)}, left=left)
