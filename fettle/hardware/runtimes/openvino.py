"""OpenVINO on an Intel or AMD CPU: reads ONNX, float or int8 in QDQ form, runs its own IR.

The IR is saved without compression to fp16, and executed in float32 where a layer is not int8: on
CPUs with AVX512-BF16 OpenVINO otherwise rounds every layer to bfloat16 without saying so (seen:
logits off by 0.35 instead of 2e-5). Where bfloat16 is asked for, the file itself says so, so that
whoever opens it computes alike.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    from openvino import CompiledModel, Model

ENTRY = "model.xml"  # the graph; its weights lie beside it in model.bin
PRECISION = ["fettle", "precision"]  # where the file says "bf16", in its rt_info
INSTALL = "pip install 'fettle-mlops[openvino]'"
PACKAGES = ("openvino",)


def available() -> Availability:
    """Look for the package openvino."""
    return installed("openvino", INSTALL)


def compile(model: Path, out: Path, *, bf16: bool = False) -> str:
    """Write model.xml and model.bin of an ONNX to `out`; return the entry's name.

    Raises ModelError when OpenVINO cannot read the model, or this CPU has no bfloat16 and it is
    asked for; TargetError when OpenVINO is absent.
    """
    check_entry(model)
    ov = toolkit()
    with translated(f"OpenVINO cannot read {model.name}"):
        read = ov.Core().read_model(str(model))
        _name_by_position(read)
        if bf16:
            read.set_rt_info("bf16", PRECISION)
        ov.save_model(read, str(out / ENTRY), compress_to_fp16=False)
    open(out / ENTRY, threads=1)
    return ENTRY


def open(entry: Path, *, threads: int) -> OpenvinoSession:
    """Load a model.xml (or an ONNX) on the CPU with `threads` threads, tuned for latency.

    Raises ModelError when it cannot be loaded, or says bf16 and this CPU has none; TargetError when
    OpenVINO is absent or would compute in another precision than asked.
    """
    return OpenvinoSession(compiled(entry, threads=threads))


def compiled(entry: Path, *, threads: int, **more: str | int | bool) -> CompiledModel:
    """Compile an entry, served or measured or profiled; see `open` for what it raises.

    `more` are further options of OpenVINO by their names there.
    """
    check_entry(entry)
    core = toolkit().Core()
    with translated(f"OpenVINO cannot load {entry.name}"):
        read = core.read_model(str(entry))
        asked = read.get_rt_info(PRECISION).value if read.has_rt_info(PRECISION) else "f32"
        can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if asked == "bf16" and "BF16" not in can:
        raise ModelError(
            "this CPU does not compute in bfloat16",
            got=f"OpenVINO finds {', '.join(sorted(can))}",
            rule="bf16 takes AVX512-BF16 or AMX (`lscpu` says avx512_bf16 or amx_bf16)",
            fix="drop x86_openvino_bf16 (params.yaml: targets), or run on such a CPU",
        )
    options = {
        "INFERENCE_PRECISION_HINT": asked,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        **more,
    }
    with translated(f"OpenVINO cannot load {entry.name}"):
        model = core.compile_model(read, "CPU", options)
        precision = model.get_property("INFERENCE_PRECISION_HINT").to_string()
    if precision != asked:
        raise TargetError(
            "OpenVINO would change the precision of the model",
            got=precision,
            rule=f"what is not int8 is computed in {asked}",
            fix=f"install the version this project is tested with: {INSTALL}",
        )
    return model


def profile(entry: Path, *, threads: int) -> Profiler:
    """Load a model as `open` does, with OpenVINO's performance counters on."""
    from fettle.hardware.openvino_profiler import OpenvinoProfiler

    return OpenvinoProfiler(entry, threads)


class OpenvinoSession:
    """A model compiled by OpenVINO; the first input and the first output are used.

    Its one request serves one call at a time: calls from several threads queue.
    """

    input_shape: Shape

    def __init__(self, compiled: CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        shape = compiled.input(0).get_partial_shape()
        self.input_shape = tuple(size.get_length() if size.is_static else None for size in shape)

    def run(self, batch: Floats) -> Floats:
        """Return the logits float32 [N, classes] of a batch float32 [N, C, H, W]."""
        # checked first: OpenVINO itself takes wrong channels and types, and answers nonsense
        return run_checked(self, self._run, batch)

    def _run(self, batch: Floats) -> Floats:
        with self._lock, translated("OpenVINO cannot run the model"):
            answers = self._request.infer({0: np.ascontiguousarray(batch)}, share_inputs=True)
            return np.array(answers[0], dtype=np.float32)


def _name_by_position(model: Model) -> None:
    """Rename what OpenVINO named by a counter of the whole process: same model, same bytes."""
    for index, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_at_{index}")


def toolkit() -> ModuleType:
    """Import openvino with its telemetry replaced by the stub it ships for when that is absent.

    Importing it otherwise sends an event to a remote host from a child process, and writes an
    identifier into the home folder (seen in 2026.4; it has no environment switch but CI=true).
    Raises TargetError when openvino is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: "absent"
    try:
        import openvino
    except ImportError as err:
        raise TargetError(
            "OpenVINO is not installed", got=str(err), fix=f"run {INSTALL}, or drop its targets"
        ) from err
    imported: ModuleType = openvino
    return imported


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn OpenVINO's exceptions into ModelError, the line that says most kept."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as err:
        raise ModelError(
            what,
            got=_reason(str(err)),
            rule="a model has one float32 input [N, C, H, W] and gives logits [N, classes]",
            fix="drop the OpenVINO targets for this model, or replace that operator",
        ) from err


def _reason(text: str) -> str:
    """Pick the line that names the operators, else the last: the first ones name source files."""
    lines = [line.strip(" -") for line in text.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith("No conversion rule found")]
    return [*lines, *named][-1][:300] if lines else "no message"
