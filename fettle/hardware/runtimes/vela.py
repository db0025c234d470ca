"""Vela, Arm's compiler for Ethos-U NPUs, in an environment of its own: int8 alone.

Nothing here runs an Ethos-U. Answers come from LiteRT's reference kernels on the int8 file that
Vela compiled; cycles and SRAM are Vela's own model of the hardware, and no measurement. `device` in
a target's record are Vela's own words: the accelerator, what is around it, and how much SRAM there
is (--arena-cache-size, bytes), which the model must fit.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, Limits, Toolchain
from fettle.hardware.runtimes import (
    Availability,
    CompileRequest,
    Estimate,
    Placement,
    check_entry,
    litert,
)

ENTRY, FIGURES = "model_vela.tflite", "vela.json"
PACKAGES = ("ethos-u-vela", *litert.PACKAGES)
ANSWERED_BY = "LiteRT's int8 reference kernels, on the file that Vela compiled"
DIALECTS, INT8_ONLY = litert.DIALECTS, True
SRAM_WORD = "--arena-cache-size"
TOOLCHAIN = Toolchain(
    name="vela",
    title="Vela",
    requirements=("ethos-u-vela==5.2.0", *litert.TOOLCHAIN.requirements),
    pythons=((3, 11), (3, 13)),
    download_mb=100,
    disk_mb=400,
    minutes=1,
    limits=Limits(seconds=900, memory_bytes=8 * GIB),
)
# Vela's figure, what it is, its unit, and by what it is multiplied
ESTIMATES = (
    ("cycles_total", "cycles of an inference", "cycles", 1.0),
    ("cycles_npu", "cycles of them in which the NPU computes", "cycles", 1.0),
    ("inference_time", "time of an inference at the clock of its configuration", "ms", 1e3),
    ("sram_memory_used", "SRAM in use", "KiB", 1.0),
    ("off_chip_flash_memory_used", "flash in use", "KiB", 1.0),
    ("dram_memory_used", "DRAM in use", "KiB", 1.0),
)


class _VelaFacts(TypedDict):
    """What vela.json holds: the script of this toolchain writes it."""

    figures: dict[str, float]
    fallback: list[str]
    operators: int


def available() -> Availability:
    """Look for Vela's environment."""
    return toolchain_environment.availability(TOOLCHAIN)


def toolkit() -> Path:
    """Return the Python of Vela's environment; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Refuse: without a device and calibration images there is nothing to compile."""
    del out, bf16
    check_entry(model)
    raise ModelError(
        "Vela compiles whole int8 alone",
        got=f"{model.name}, and no calibration images",
        rule="an Ethos-U computes in integers",
        fix="take a target of precision int8 and dialect litert",
    )


def compile_for(model: Path, out: Path, *, request: CompileRequest) -> str:
    """Quantize an ONNX and compile it for `request.device`; return the entry's name.

    Raises ModelError when an operator has no TFLite form, no calibration images are given, or the
    device's SRAM does not hold the model; TargetError when Vela is not installed.
    """
    if request.calibration is None:
        return compile(model, out)
    check_entry(model)
    with tempfile.TemporaryDirectory(prefix="fettle-calibration-") as folder:
        images = Path(folder) / "images.npy"
        np.save(images, request.calibration)
        words = {"model": str(model.resolve()), "out": str(out.resolve()), "entry": ENTRY}
        more = {"calibration": str(images), "device": request.device}
        with isolated_session.start(TOOLCHAIN) as worker:
            worker.ask("compile", {**words, **more})
    _check_sram(out / ENTRY, request.device)
    return ENTRY


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load what an entry was compiled from; raises as LiteRT's `open` does."""
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes that an entry adds to the toolchain's own at the peak, in a fresh worker."""
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=threads, shape=shape)


def placement(entry: Path) -> Placement:
    """Tell which operators the NPU runs, and name those that Vela left to the CPU."""
    stated = _stated(entry)
    fallback = tuple(stated["fallback"])
    total = max(stated["operators"], 1)
    return Placement(share=max(0.0, 1 - len(fallback) / total), fallback=fallback)


def estimates(entry: Path) -> tuple[Estimate, ...]:
    """Return Vela's own figures: cycles, time at its clock, memory."""
    figures = _stated(entry)["figures"]
    tool = f"Vela {available().version}, a model of the hardware"
    return tuple(
        Estimate(what=what, value=figures[key] * factor, unit=unit, tool=tool)
        for key, what, unit, factor in ESTIMATES
    )


def _check_sram(entry: Path, device: str) -> None:
    words = shlex.split(device)
    if SRAM_WORD not in words:
        return
    holds = int(words[words.index(SRAM_WORD) + 1]) / 1024
    used = _stated(entry)["figures"]["sram_memory_used"]
    if used > holds:
        raise ModelError(
            "the NPU's SRAM does not hold the model",
            got=f"{used:,.0f} KiB in use, by Vela's allocation",
            rule=f"there are {holds:,.0f} KiB ({SRAM_WORD} in the target's record)",
            fix="prune more channels, or lower preprocess.size_px (params.yaml), or name a device "
            "with more SRAM",
        )


def _stated(entry: Path) -> _VelaFacts:
    stated: _VelaFacts = json.loads(entry.with_name(FIGURES).read_text())
    return stated
