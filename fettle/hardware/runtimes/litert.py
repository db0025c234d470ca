"""LiteRT (TensorFlow Lite's runtime) on this CPU, in an environment of its own: float and int8.

The ONNX is converted operator by operator (ADR 0052), the int8 form is ai-edge-quantizer's.
The file is what Android and iOS apps load; XNNPACK, which runs it here, runs it there too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, Limits, Toolchain
from fettle.hardware.runtimes import Availability, CompileRequest, check_entry

ENTRY = "model.tflite"
PACKAGES = ("ai-edge-litert", "ai-edge-quantizer", "onnx")
DIALECTS = ("litert",)
ANSWERED_BY = "LiteRT with XNNPACK on this CPU, which runs the very file"
TOOLCHAIN = Toolchain(
    name="litert",
    title="LiteRT",
    requirements=(
        "ai-edge-litert==2.3.0",
        "ai-edge-quantizer==0.10.0",
        "onnx==1.23.2",
        "backports-strenum==1.2.8",  # uv overlooks that the next is for Pythons below 3.11
    ),
    pythons=((3, 11), (3, 14)),
    download_mb=90,
    disk_mb=350,
    minutes=1,
    limits=Limits(seconds=900, memory_bytes=8 * GIB),
)


def available() -> Availability:
    """Look for LiteRT's environment."""
    return toolchain_environment.availability(TOOLCHAIN)


def toolkit() -> Path:
    """Return the Python of LiteRT's environment; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Convert an ONNX to a float TFLite file in `out`; return the entry's name.

    Raises ModelError when an operator has no TFLite form, or bfloat16 is asked for; TargetError
    when LiteRT is not installed.
    """
    if bf16:
        raise ModelError(
            "LiteRT is not asked to compute in bfloat16 here",
            got="a target of precision bf16",
            rule="its targets here are fp32 and int8",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    return _compile(model, out, {})


def compile_for(model: Path, out: Path, *, request: CompileRequest) -> str:
    """Convert an ONNX, and quantize it to whole int8 where calibration images are given.

    Raises ModelError and TargetError as `compile` does.
    """
    if request.calibration is None:
        return compile(model, out, bf16=request.precision == "bf16")
    with tempfile.TemporaryDirectory(prefix="fettle-calibration-") as folder:
        images = Path(folder) / "images.npy"
        np.save(images, request.calibration)
        return _compile(model, out, {"calibration": str(images)})


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load a model.tflite in a worker, with `threads` threads.

    Raises ModelError when it cannot be loaded, TargetError when LiteRT is not installed.
    """
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes an entry adds to LiteRT's own at the peak, in a fresh worker."""
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=threads, shape=shape)


def _compile(model: Path, out: Path, more: dict[str, str]) -> str:
    check_entry(model)
    words = {"model": str(model.resolve()), "out": str((out / ENTRY).resolve()), **more}
    with isolated_session.start(TOOLCHAIN) as worker:
        worker.ask("compile", words)
    open(out / ENTRY, threads=1)
    return ENTRY
