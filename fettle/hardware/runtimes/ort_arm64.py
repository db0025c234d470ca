"""ONNX Runtime on a 64-bit ARM CPU, emulated: its own aarch64 wheel, run by qemu-user.

The entry is the ONNX itself, as in ort.py. The answers are those of the ARM kernels (NEON, fp32 and
int8): on 720 digits they were 5.5e-6 from x86's in fp32, and equal in int8 but for a sum that lies
on a rounding edge. qemu's time says nothing of a board's, so it is not taken. 1.27 is the newest
whose wheel runs in qemu 7.2: 1.32 segfaults there.
"""

from __future__ import annotations

from pathlib import Path

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import (
    GIB,
    DebianPackages,
    EmulatedPython,
    Limits,
    Toolchain,
)
from fettle.hardware.runtimes import Availability, check_entry

ENTRY = "model.onnx"
VERSION = "1.27.0"
PACKAGES = ("onnxruntime", "numpy", "qemu-user-static", "python3.11-minimal", "libc6")
ANSWERED_BY = f"ONNX Runtime {VERSION} for aarch64 under qemu-user"
TOOLCHAIN = Toolchain(
    name="ort_arm64",
    title="ONNX Runtime for arm64",
    requirements=(f"onnxruntime=={VERSION}",),
    pythons=((3, 11), (3, 14)),
    download_mb=110,
    disk_mb=500,  # while it is made; 190 after
    minutes=1,
    limits=Limits(seconds=900, memory_bytes=8 * GIB),
    debian=(
        DebianPackages(packages=("qemu-user-static",), folder="qemu"),
        DebianPackages(
            packages=(
                "python3.11-minimal",
                "libpython3.11-minimal",
                "libpython3.11-stdlib",
                "libc6",
                "libgcc-s1",
                "libstdc++6",
                "zlib1g",
                "libexpat1",
                "libffi8",
                "libbz2-1.0",
                "liblzma5",
            ),
            folder="sysroot",
            architecture="arm64",
        ),
    ),
    emulated=EmulatedPython(
        machine="aarch64",
        version="3.11",
        wheel_tags=("manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17"),
    ),
)


def available() -> Availability:
    """Look for the emulated environment."""
    return toolchain_environment.availability(TOOLCHAIN)


def toolkit() -> Path:
    """Return the emulated Python; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Copy the ONNX to `out`, once it loads in the emulator; return the entry's name.

    Raises ModelError when ONNX Runtime refuses the model, or bfloat16 is asked for; TargetError
    when the environment is not installed.
    """
    check_entry(model)
    if bf16:
        raise ModelError(
            "ONNX Runtime does not compute in bfloat16 on the CPU",
            got="a target of precision bf16",
            rule="its ARM kernels are fp32 and int8",
            fix="take arm64_ort_fp32 (params.yaml: targets)",
        )
    words = {"model": str(model.resolve()), "out": str(out.resolve()), "entry": ENTRY}
    with isolated_session.start(TOOLCHAIN) as worker:
        worker.ask("compile", words)
    return ENTRY


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load an ONNX in an emulated worker, with `threads` threads.

    Raises ModelError when it cannot be loaded, TargetError when the environment is not installed.
    """
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)
