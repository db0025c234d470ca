"""Qualcomm Hexagon (HTP) by ONNX Runtime's QNN provider: its x86 emulator, no fallback to the CPU.

Compiling makes a context binary for one chip (Snapdragon X Elite: soc_model 60, HTP architecture
75), which the emulator in the same wheel then runs: its answers are the integer arithmetic of the
NPU, its speed says nothing. Everything in the graph runs there or the model is refused.

Only unsigned activations are taken: with symmetric signed ones the emulator answers nonsense and
says no word (EfficientNet-Lite0: cosine -0.65, one answer in ten kept).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, Limits, Toolchain
from fettle.hardware.runtimes import Availability, Placement, check_entry

ENTRY = "model.onnx"  # one EPContext node; the context binary lies beside it
PLACED = "placement.json"  # which nodes ONNX Runtime gave to the NPU, and which not
ANSWERED_BY = "QNN's emulator of Hexagon on x86"
PACKAGES = ("onnxruntime-qnn", "onnxruntime")
DIALECTS = ("qdq_u8s8_whole",)
TOOLCHAIN = Toolchain(
    name="qnn",
    title="Qualcomm QNN",
    requirements=("onnxruntime-qnn==2.7.0", "onnxruntime==1.32.0", "onnx==1.23.2"),
    pythons=((3, 11), (3, 14)),
    download_mb=170,
    disk_mb=560,
    minutes=1,
    platforms=(("linux", "x86_64"),),
    # half a second an image of EfficientNet-Lite0 at 32 px, and a call takes a batch
    limits=Limits(seconds=1800, memory_bytes=8 * GIB),
)


def available() -> Availability:
    """Look for QNN's environment."""
    return toolchain_environment.availability(TOOLCHAIN)


def toolkit() -> Path:
    """Return the Python of QNN's environment; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Compile an ONNX of the dialect qdq_u8s8_whole for Hexagon to `out`; return the entry's name.

    Raises ModelError when the file is of another dialect, an operator does not run on the NPU, or
    bfloat16 is asked for; TargetError when QNN is not installed.
    """
    check_entry(model)
    if bf16:
        raise ModelError(
            "QNN is not asked to compute in bfloat16 here",
            got="a target of precision bf16",
            rule="its target here is int8",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    words = {"model": str(model.resolve()), "out": str(out.resolve()), "entry": ENTRY}
    with isolated_session.start(TOOLCHAIN) as worker:
        found = worker.ask("dialect", {"model": words["model"]})
        if found["refused"]:
            raise ModelError(
                f"{model.name} is not in the int8 dialect that Hexagon takes",
                got=found["refused"],
                rule=f"{' or '.join(DIALECTS)}: unsigned activations, signed weights; symmetric "
                "signed activations give nonsense there without an error",
                fix=f"set dialect to '{DIALECTS[0]}' in the target's record",
            )
        worker.ask("compile", words)
    open(out / ENTRY, threads=1)
    return ENTRY


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load a compiled model in the emulator; `threads` changes nothing there.

    Raises ModelError when it cannot be loaded, TargetError when QNN is not installed.
    """
    return isolated_session.open_session(TOOLCHAIN, entry, threads=threads)


def placement(entry: Path) -> Placement:
    """Say that all of it runs on the NPU: with the fallback off, the rest would not load."""
    check_entry(entry)
    counts = json.loads(entry.with_name(PLACED).read_text())
    share = counts["accelerator"] / max(1, counts["accelerator"] + len(counts["other"]))
    return Placement(share=share, fallback=tuple(counts["other"]))


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes an entry adds to the emulator's own at the peak, in a fresh worker."""
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=threads, shape=shape)
