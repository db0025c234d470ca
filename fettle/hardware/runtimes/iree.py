"""IREE on this CPU, in an environment of its own: the ONNX compiled ahead of time by LLVM.

Taken for its reach (one compiler for many machines), not for speed: on x86 EfficientNet-Lite0 ran
four times slower than in ONNX Runtime. The compiled file is bound to the CPU it was compiled on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, Limits, Toolchain
from fettle.hardware.runtimes import Availability, check_entry

ENTRY = "model.vmfb"
PACKAGES = ("iree-base-compiler", "iree-base-runtime")
TOOLCHAIN = Toolchain(
    name="iree",
    title="IREE",
    requirements=("iree-base-compiler[onnx]==3.13.0", "iree-base-runtime==3.13.0"),
    pythons=((3, 11), (3, 14)),
    download_mb=130,
    disk_mb=620,
    minutes=1,
    limits=Limits(seconds=900, memory_bytes=8 * GIB),
)


def available() -> Availability:
    """Look for IREE's environment."""
    return toolchain_environment.availability(TOOLCHAIN)


def toolkit() -> Path:
    """Return the Python of IREE's environment; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Compile an ONNX for this CPU to `out`; return the entry's name.

    Raises ModelError when IREE cannot compile or load it, or bfloat16 is asked for; TargetError
    when IREE is not installed.
    """
    check_entry(model)
    if bf16:
        raise ModelError(
            "IREE is not asked to compute in bfloat16 here",
            got="a target of precision bf16",
            rule="its target here is fp32",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    words = {"model": str(model.resolve()), "out": str(out.resolve()), "entry": ENTRY}
    with isolated_session.start(TOOLCHAIN) as worker:
        worker.ask("compile", words)
    open(out / ENTRY, threads=1)
    return ENTRY


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load a model.vmfb in a worker, with `threads` threads.

    Raises ModelError when it cannot be loaded, TargetError when IREE is not installed.
    """
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes an entry adds to IREE's own at the peak, in a fresh worker."""
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=threads, shape=shape)
