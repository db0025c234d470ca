"""ONNX Runtime for the web (onnxruntime-web): WebAssembly, answered here by this machine's Node.js.

The WebAssembly is the file that a browser loads, so the answers are a browser's; the time is this
machine's under Node.js, and stated as an estimate. Compiling writes a page that classifies a photo
chosen by its user, with all that it loads: nothing is fetched from elsewhere. Served from a release
it takes labels and preprocessing from there (web/classify.mjs).
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fettle.errors import ModelError
from fettle.hardware.isolated import isolated_session, toolchain_environment
from fettle.hardware.isolated.isolated_session import IsolatedSession
from fettle.hardware.isolated.toolchain import GIB, HERE, Limits, Toolchain
from fettle.hardware.runtimes import Availability, Estimate, check_entry

ENTRY = "model.onnx"
PACKAGES = ("onnxruntime-web",)
ANSWERED_BY = "onnxruntime-web's WebAssembly under this machine's Node.js"
PAGE = ("index.html", "classify.mjs", "resize.mjs")
TIMED_RUNS = 50
TOOLCHAIN = Toolchain(
    name="ort_web",
    shared_script="ort_javascript",
    title="ONNX Runtime for the web",
    requirements=("onnxruntime-web@1.30.0",),
    pythons=((3, 11), (3, 14)),
    download_mb=40,
    disk_mb=145,
    minutes=1,
    interpreter="node",
    limits=Limits(seconds=600, memory_bytes=4 * GIB),
)


def available() -> Availability:
    """Look for the packages beside Node.js."""
    return toolchain_environment.availability(TOOLCHAIN)


def toolkit() -> Path:
    """Return the environment's Node.js; raises TargetError when it is not installed."""
    return toolchain_environment.python(TOOLCHAIN)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Write the ONNX, a page and what it loads to `out`, once WebAssembly runs it.

    Return the entry's name. Raises ModelError when it does not load, or bfloat16 is asked for;
    TargetError when the packages are not installed.
    """
    check_entry(model)
    if bf16:
        raise ModelError(
            "WebAssembly does not compute in bfloat16",
            got="a target of precision bf16",
            rule="its kernels are fp32 and int8",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    with isolated_session.start(TOOLCHAIN) as worker:
        words = {"model": str(model.resolve()), "out": str(out.resolve()), "entry": ENTRY}
        worker.ask("compile", words)
    for name in PAGE:
        shutil.copyfile(HERE / "web" / name, out / name)
    return ENTRY


def open(entry: Path, *, threads: int) -> IsolatedSession:
    """Load an ONNX in WebAssembly under Node.js; it runs on one thread whatever `threads` says.

    Raises ModelError when it cannot be loaded, TargetError when the packages are not installed.
    """
    del threads
    return isolated_session.open_session(TOOLCHAIN, entry, threads=1)


def estimates(entry: Path) -> tuple[Estimate, ...]:
    """Time one image under Node.js: no browser, so an estimate."""
    session = open(entry, threads=1)
    shape = [1 if size is None else size for size in session.input_shape]
    bound = session.bind(np.zeros(shape, np.float32))
    for _ in range(5):
        bound()
    taken = [bound.time_ms() for _ in range(TIMED_RUNS)]
    version = available().version
    tool = f"onnxruntime-web {version}, WebAssembly under this machine's Node.js, one thread"
    return (Estimate(what="latency, median", value=statistics.median(taken), unit="ms", tool=tool),)


def peak_bytes(entry: Path, *, threads: int, shape: Sequence[int]) -> int:
    """Return the bytes an entry adds to Node.js's own at the peak, in a fresh worker."""
    del threads
    return isolated_session.peak_bytes(TOOLCHAIN, entry, threads=1, shape=shape)
