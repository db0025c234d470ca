"""ONNX Runtime for Node.js (onnxruntime-node): the same ONNX, from JavaScript.

Timed in the Node.js process that runs it. No install script of a package is run: its library for
the CPU lies in the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, Limits, Toolchain
from fettle.hardware.runtimes import Availability, check_entry

ENTRY = "model.onnx"
PACKAGES = ("onnxruntime-node",)
TOOLCHAIN = Toolchain(
    name="ort_node",
    shared_script="ort_javascript",
    title="ONNX Runtime for Node.js",
    requirements=("onnxruntime-node@1.30.0",),
    pythons=((3, 11), (3, 14)),
    download_mb=110,
    disk_mb=300,
    minutes=1,
    interpreter="node",
    limits=Limits(seconds=300, memory_bytes=4 * GIB),
)


def available() -> Availability:
    """Look for the packages beside Node.js."""
    return toolchain_environment.availability(TOOLCHAIN)


def toolkit() -> Path:
    """Return the environment's Node.js; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Copy the ONNX to `out`, once it loads in Node.js; return the entry's name.

    Raises ModelError when it does not, or bfloat16 is asked for; TargetError when the packages are
    not installed.
    """
    check_entry(model)
    if bf16:
        raise ModelError(
            "ONNX Runtime does not compute in bfloat16 on the CPU",
            got="a target of precision bf16",
            rule="its CPU kernels are fp32 and int8",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    with isolated_session.start(TOOLCHAIN) as worker:
        words = {"model": str(model.resolve()), "out": str(out.resolve()), "entry": ENTRY}
        worker.ask("compile", words)
    return ENTRY


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load an ONNX in Node.js, with `threads` threads.

    Raises ModelError when it cannot be loaded, TargetError when the packages are not installed.
    """
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes an entry adds to Node.js's own at the peak, in a fresh worker."""
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=threads, shape=shape)
