"""IREE: one compiler for many devices, in an environment of its own; LLVM for CPUs and GPUs.

Taken for its reach, not for speed: on x86 EfficientNet-Lite0 ran four times slower than in ONNX
Runtime. The file for this CPU is bound to its instructions. Of the other devices only arm64 is run
here, by the runtime's own aarch64 package under qemu-user; of the rest it is checked that the file
carries code of that machine (iree_devices.py), and no more.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from fettle.errors import ModelError
from fettle.hardware.isolated import iree_devices, isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, ForeignPackages, Limits, Toolchain
from fettle.hardware.runtimes import Availability, CompileRequest, Estimate, check_entry

ENTRY = "model.vmfb"
ABOUT = "shape.json"  # beside the entry: its input's shape, and which device it is for
PACKAGES = ("iree-base-compiler", "iree-base-runtime")
ANSWERED_BY = "IREE's runtime for arm64 under qemu-user"
QEMU = "qemu-aarch64"
ARM_ROOT = Path("/usr/aarch64-linux-gnu")  # where Debian's libc6-arm64-cross puts arm64's libraries
TOOLCHAIN = Toolchain(
    name="iree",
    title="IREE",
    requirements=("iree-base-compiler[onnx]==3.13.0", "iree-base-runtime==3.13.0"),
    pythons=((3, 11), (3, 14)),
    download_mb=145,
    disk_mb=680,
    minutes=1,
    limits=Limits(seconds=900, memory_bytes=8 * GIB),
    foreign=ForeignPackages(
        packages=("iree-base-runtime",),
        platforms=("manylinux_2_28_aarch64", "manylinux_2_27_aarch64"),
    ),
)


def available() -> Availability:
    """Look for IREE's environment."""
    return toolchain_environment.availability(TOOLCHAIN)


def available_for(device: str) -> Availability:
    """Look for IREE's environment, and for what runs a file of that device here."""
    found = available()
    if not found.ok or device != "arm64" or platform.machine() in ("aarch64", "arm64"):
        return found
    lacks = [] if shutil.which(QEMU) else [f"the program {QEMU}"]
    lacks += [] if (ARM_ROOT / "lib" / "libc.so.6").exists() else [f"arm64's libc in {ARM_ROOT}"]
    if not lacks:
        return found
    return Availability(
        False,
        found.version,
        f"{' and '.join(lacks)} {'is' if len(lacks) == 1 else 'are'} not installed",
        "apt-get install qemu-user libc6-arm64-cross libstdc++6-arm64-cross",
    )


def toolkit() -> Path:
    """Return the Python of IREE's environment; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Compile an ONNX for this CPU to `out`; return the entry's name.

    Raises ModelError when IREE cannot compile or load it, or bfloat16 is asked for; TargetError
    when IREE is not installed.
    """
    precision = "bf16" if bf16 else "fp32"
    return compile_for(
        model, out, request=CompileRequest(device="", precision=precision, dialect=None)
    )


def compile_for(model: Path, out: Path, *, request: CompileRequest) -> str:
    """Compile an ONNX for the device asked for, "" for this CPU; return the entry's name.

    Raises as `compile` does, and ModelError where the file carries no code of the device.
    """
    check_entry(model)
    if request.precision != "fp32":
        raise ModelError(
            "IREE is asked for 32-bit floats only here",
            got=f"a target of precision {request.precision}",
            rule="its targets here are fp32",
            fix="take a target of another runtime (params.yaml: targets)",
        )
    device = iree_devices.named(request.device)
    words = {
        "model": str(model.resolve()),
        "out": str(out.resolve()),
        "entry": ENTRY,
        "flags": " ".join(device.flags),
        "device": device.name,
    }
    with isolated_session.start(TOOLCHAIN) as worker:
        worker.ask("compile", words)
    iree_devices.check_code(out / ENTRY, device)
    if device.runs_here:
        open(out / ENTRY, threads=1)
    return ENTRY


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load a model.vmfb in a worker, with `threads` threads; one of arm64's runs under qemu.

    Raises ModelError when it cannot be loaded, TargetError when IREE is not installed.
    """
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)


def estimates(entry: Path) -> tuple[Estimate, ...]:
    """Return what NVIDIA's assembler says of a file for its GPUs; nothing where it is not here."""
    about = json.loads(entry.with_name(ABOUT).read_text())
    return iree_devices.assembled(entry) if about.get("device") == "cuda" else ()


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes an entry adds to IREE's own at the peak, in a fresh worker."""
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=threads, shape=shape)
