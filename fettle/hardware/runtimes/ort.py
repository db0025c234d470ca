"""ONNX Runtime on the CPU: runs any ONNX file, float or int8 in QDQ form.

The entry is the ONNX itself. Saving ONNX Runtime's own optimised graph beside it would start a
little faster (0.03 to 0.07 s are spent on it at load), but binds the file to one CPU and one
version: so `compile` copies.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from fettle.errors import ModelError, TargetError
from fettle.hardware.runtimes import (
    Availability,
    Floats,
    Profiler,
    Shape,
    check_entry,
    installed,
    run_checked,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

ENTRY = "model.onnx"
INSTALL = "pip install onnxruntime"
PROVIDER = "CPUExecutionProvider"
PACKAGES = ("onnxruntime",)


def available() -> Availability:
    """Look for the package onnxruntime."""
    return installed("onnxruntime", INSTALL)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Copy the ONNX to `out`, once it loads here; return the entry's name.

    Raises ModelError when ONNX Runtime refuses the model, or bfloat16 is asked for.
    """
    if bf16:
        raise ModelError(
            "ONNX Runtime does not compute in bfloat16 on the CPU",
            got="a target of precision bf16",
            rule="its CPU kernels are fp32 and int8",
            fix="take x86_openvino_bf16 (params.yaml: targets)",
        )
    open(model, threads=1)
    shutil.copyfile(model, out / ENTRY)
    return ENTRY


def toolkit() -> ModuleType:
    """Import onnxruntime; raises TargetError when it is not installed."""
    try:
        import onnxruntime
    except ImportError as err:
        raise TargetError(
            "ONNX Runtime is not installed", got=str(err), fix=f"run {INSTALL}"
        ) from err
    imported: ModuleType = onnxruntime
    return imported


def open(entry: Path, *, threads: int) -> OrtSession:
    """Load an ONNX with `threads` intra-op threads, every graph optimisation on.

    Raises ModelError when it cannot be loaded, TargetError when another provider than the CPU's
    would run it (ONNX Runtime changes provider without an error).
    """
    check_entry(entry)
    ort = toolkit()
    return _load(ort, entry, session_options(ort, threads, entry))


def unoptimised(entry: Path, *, threads: int) -> OrtSession:
    """Load an ONNX as `open` does, no node folded or fused: what optimisation buys is measured so.

    An int8 file then computes in float between its Q/DQ pairs: fusing is what makes it int8.
    """
    check_entry(entry)
    ort = toolkit()
    options = session_options(ort, threads, entry)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _load(ort, entry, options)


def _load(ort: ModuleType, entry: Path, options: SessionOptions) -> OrtSession:
    with translated(f"ONNX Runtime cannot load {entry.name}"):
        session = ort.InferenceSession(str(entry), options, providers=[PROVIDER])
    if session.get_providers() != [PROVIDER]:
        raise TargetError(
            "ONNX Runtime chose another device than asked",
            got=", ".join(session.get_providers()),
            rule=f"this target runs on {PROVIDER} only",
            fix="keep one of onnxruntime, onnxruntime-gpu and onnxruntime-openvino installed",
        )
    return OrtSession(session)


def session_options(ort: ModuleType, threads: int, entry: Path) -> SessionOptions:
    """Set what a session is opened with, served or measured or profiled."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only: they are raised besides
    # an idle session's threads would spin beside the one that is measured or served
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if b"QuantizeLinear" not in entry.read_bytes():
        # nothing is quantized at run time: int8 weights are then widened once, at load. Without
        # this, at every run: EfficientNet-Lite0 at 32 px took 18.5 ms instead of 1.6.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def profile(entry: Path, *, threads: int) -> Profiler:
    """Load an ONNX as `open` does, with ONNX Runtime's profiler on."""
    from fettle.hardware.ort_profiler import OrtProfiler

    return OrtProfiler(entry, threads)


class OrtSession:
    """A model loaded by ONNX Runtime; the first input and the first output are used."""

    input_shape: Shape

    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        first = session.get_inputs()[0]
        self._input, self._output = first.name, session.get_outputs()[0].name
        self.input_shape = tuple(size if isinstance(size, int) else None for size in first.shape)

    def run(self, batch: Floats) -> Floats:
        """Return the logits float32 [N, classes] of a batch float32 [N, C, H, W]."""
        return run_checked(self, self._run, batch)

    def _run(self, batch: Floats) -> Floats:
        with translated("ONNX Runtime cannot run the model"):
            (logits,) = self._session.run([self._output], {self._input: batch})
        return np.asarray(logits, dtype=np.float32)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn ONNX Runtime's exceptions into ModelError, its first line kept."""
    foreign = _foreign_errors()
    try:
        yield
    except foreign as err:
        raise ModelError(
            what,
            got=str(err).strip().split("\n", 1)[0][:300],
            rule="a model has one float32 input [N, C, H, W] and gives logits [N, classes]",
            fix="check the file with onnx's `check-model`, or export it again",
        ) from err


@cache  # looking through the module took 0.1 ms, a third of a small model's run
def _foreign_errors() -> tuple[type[Exception], ...]:
    """Collect what ONNX Runtime raises: Fail, InvalidGraph… share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception)]
    return (*own, RuntimeError, ValueError)
