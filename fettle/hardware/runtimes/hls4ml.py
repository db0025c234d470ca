"""FPGA by hls4ml: C++ for AMD's HLS in fixed point, simulated bit by bit on this machine.

What the model's weights take of the chip's block RAM is worked out first, and a model that does not
fit is refused with what it needs. The circuit itself is made by the vendor's tools (`vitis_hls`),
which are not in a registry: LUTs and clock are unknown here.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, Limits, Toolchain
from fettle.hardware.runtimes import (
    Availability,
    CompileRequest,
    Estimate,
    Floats,
    check_entry,
)

ENTRY = "model.json"
PACKAGES = ("hls4ml", "qonnx")
ANSWERED_BY = "hls4ml's C++, compiled here: bit-accurate fixed point"
# Block RAM in kbit, by AMD's part number.
CHIPS = {"xc7z020clg400-1": 4_900, "xcu250-figd2104-2L-e": 96_768}
SMALLEST = "xc7z020clg400-1"
WIDTH_LEAST = 8  # bits of a weight in the narrowest attempt
TOOLCHAIN = Toolchain(
    name="hls4ml",
    title="hls4ml",
    requirements=("hls4ml==1.3.0", "qonnx==1.0.0", "onnxruntime==1.32.0"),
    pythons=((3, 11), (3, 14)),
    download_mb=85,
    disk_mb=360,
    minutes=2,
    limits=Limits(seconds=1800, memory_bytes=8 * GIB),
)


def available() -> Availability:
    """Look for hls4ml's environment, and for the compiler that its simulation takes."""
    found = toolchain_environment.availability(TOOLCHAIN)
    if found.ok and shutil.which("g++") is None:
        return Availability(False, found.version, "g++ is not installed", "apt-get install g++")
    return found


def toolkit() -> Path:
    """Return the Python of hls4ml's environment; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Make C++ in 32-bit fixed point and its simulation in `out`; return the entry's name.

    Raises ModelError when the chip does not hold it, hls4ml cannot translate it, or bfloat16 is
    asked for; TargetError when hls4ml is not installed.
    """
    if bf16:
        raise ModelError(
            "an FPGA is not asked to compute in bfloat16 here",
            got="a target of precision bf16",
            rule="its targets here are in fixed point",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    return _compile(model, out, SMALLEST, None)


def compile_for(model: Path, out: Path, *, request: CompileRequest) -> str:
    """Make C++ of the narrowest fixed point that keeps the answers to the calibration images.

    Raises as `compile` does.
    """
    return _compile(model, out, request.device or SMALLEST, request.calibration)


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load a compiled simulation; `threads` changes nothing there.

    Raises ModelError when it cannot be loaded, TargetError when hls4ml is not installed.
    """
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)


def estimates(entry: Path) -> tuple[Estimate, ...]:
    """Return the width that was chosen, and what the weights take of the chip's block RAM."""
    about = json.loads(entry.read_text())
    kbit = about["weights"] * about["width"] / 1000
    share = kbit / CHIPS[about["part"]]
    return (
        Estimate(what=f"bits of a value ({about['type']})", value=about["width"], unit="bits",
                 tool="hls4ml, bit-accurate simulation"),
        Estimate(what="block RAM that the weights take", value=kbit, unit="kbit",
                 tool="weights times width"),
        Estimate(what=f"share of {about['part']}'s block RAM", value=share, unit="share",
                 tool="weights times width"),
    )  # fmt: skip


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes a simulation adds to its worker's at the peak, in a fresh one."""
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=threads, shape=shape)


def _compile(model: Path, out: Path, part: str, calibration: Floats | None) -> str:
    check_entry(model)
    weights = _refuse_too_large(model, part)
    with tempfile.TemporaryDirectory(prefix="fettle-calibration-") as folder:
        images = ""
        if calibration is not None:
            images = str(Path(folder) / "images.npy")
            np.save(images, calibration)
        words = {
            "model": str(model.resolve()),
            "out": str(out.resolve()),
            "entry": ENTRY,
            "part": part,
            "images": images,
        }
        with isolated_session.start(TOOLCHAIN) as worker:
            worker.ask("compile", words)
    about = json.loads((out / ENTRY).read_text())
    (out / ENTRY).write_text(json.dumps(about | {"weights": weights}, indent=1) + "\n")
    open(out / ENTRY, threads=1)
    return ENTRY


def _refuse_too_large(model: Path, part: str) -> int:
    """Count the weights; raises ModelError where the chip cannot hold them at the least width."""
    import onnx

    weights = sum(
        int(np.prod(tensor.dims)) for tensor in onnx.load(model).graph.initializer if tensor.dims
    )
    needs, has = weights * WIDTH_LEAST / 1000, CHIPS[part]
    if needs > has:
        raise ModelError(
            f"{part} does not hold the model",
            got=f"needs {needs:,.0f} kbit of block RAM for {weights:,} weights of {WIDTH_LEAST} "
            "bits",
            rule=f"the chip has {has:,} kbit",
            fix="compress the model further (params.yaml: compress), or drop this target",
        )
    return weights
