"""TensorRT for NVIDIA GPUs: an ONNX in the form that its parser takes, audited; built elsewhere.

Its libraries come from the vendor's own index alone, and building an engine takes a GPU: so the
file is made and looked into here, and `trtexec` builds the engine where there is one. `open` runs
the same file in ONNX Runtime on the CPU, for looking at it; that is no evidence of TensorRT.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fettle.errors import ModelError
from fettle.hardware.runtimes import Availability, check_entry, ort

if TYPE_CHECKING:
    from onnx import ModelProto

    from fettle.hardware.runtimes import Session

ENTRY = "model.onnx"
PACKAGES = ("onnx",)
DIALECT = "qdq_s8s8_symmetric"
COMPILE_ONLY = True


def available() -> Availability:
    """Look for the package onnxruntime, which loads the file once."""
    return ort.available()


def toolkit() -> ModuleType:
    """Import onnxruntime; raises TargetError when it is not installed."""
    return ort.toolkit()


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Copy the ONNX to `out`, once it is in TensorRT's form; return the entry's name.

    Raises ModelError when it is not, does not load, or bfloat16 is asked for.
    """
    import onnx

    if bf16:
        raise ModelError(
            "no file in bfloat16 is made for TensorRT here",
            got="a target of precision bf16",
            rule="its targets here are fp32 and int8",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    check_entry(model)
    ort.open(model, threads=1)
    wrong = audit(onnx.load(model))
    if wrong:
        raise ModelError(
            f"{model.name} is not in the int8 dialect that TensorRT takes",
            got="; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
            rule=f"{DIALECT}: signed values, every zero point 0, no quantized bias",
            fix=f"set dialect to '{DIALECT}' in the target's record",
        )
    shutil.copyfile(model, out / ENTRY)
    return ENTRY


def open(entry: Path, *, threads: int) -> Session:
    """Load the file in ONNX Runtime on the CPU; raises ModelError when it cannot."""
    return ort.open(entry, threads=threads)


def audit(proto: ModelProto) -> list[str]:
    """List what TensorRT refuses in an int8 graph: zero points, unsigned values, int32 biases."""
    from onnx import TensorProto, numpy_helper

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    wrong = []
    for node in proto.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        source = constants.get(node.input[0])
        if source is not None and source.data_type == TensorProto.INT32:
            wrong.append(f"a quantized bias ({source.name})")
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None and node.op_type == "QuantizeLinear":
            wrong.append(f"uint8 by default in {node.op_type} of {node.input[0]}")
        elif zero is not None and zero.data_type != TensorProto.INT8:
            kind = TensorProto.DataType.Name(zero.data_type).lower()
            wrong.append(f"{kind} in {node.op_type} of {node.input[0]}")
        elif zero is not None and numpy_helper.to_array(zero).any():
            wrong.append(f"a zero point that is not 0 in {node.op_type} of {node.input[0]}")
    return wrong
