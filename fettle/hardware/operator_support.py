"""Operator support: which operators of an ONNX a target lacks, found by compiling it, untrained.

What a toolchain says it supports and what it compiles are not the same, so the model is compiled
for each target that can be had here, on noise where the toolchain wants images; its weights do not
matter. int8 of our own making has the same operators, with Q/DQ beside them: its float form is
compiled.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np

from fettle import plugins
from fettle.errors import FettleError, ModelError
from fettle.hardware import precisions
from fettle.hardware.runtimes import Availability, CompileRequest, Placement
from fettle.hardware.targets import Target

NOISE_IMAGES = 32
Status = Literal["takes it", "lacks", "refuses it", "unavailable"]


@dataclass(frozen=True, slots=True)
class OperatorSupport:
    """Operator support of one target: `lacking` names the operators that the error names, or that
    would fall back to the CPU; `reason` is in the toolchain's own words.
    """

    target: str
    status: Status
    lacking: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ModelOperators:
    """A model's operators, and one image's shape."""

    names: tuple[str, ...]
    shape: tuple[int, int, int]


def check(model: Path, targets: Sequence[str]) -> list[OperatorSupport]:
    """Compile `model` for each target; raises ModelError when it is no ONNX of images."""
    found = read(model)
    return [check_target(name, model, found) for name in targets]


def read(model: Path) -> ModelOperators:
    """Read a model's operators; raises ModelError when it is no ONNX whose input is an image."""
    import onnx

    try:
        graph = onnx.load(str(model), load_external_data=False).graph
    except Exception as err:  # protobuf's own, of several kinds
        raise ModelError(
            f"{model} cannot be read as an ONNX file",
            got=f"{type(err).__name__}: {err}"[:200] if model.is_file() else "no such file",
            fix="name an ONNX file: torch.onnx.export writes one, untrained too",
        ) from err
    weights = {tensor.name for tensor in graph.initializer}
    first = next((tensor for tensor in graph.input if tensor.name not in weights), None)
    sizes = [size.dim_value for size in first.type.tensor_type.shape.dim] if first else []
    if len(sizes) != 4 or min(sizes[1:]) < 1:
        raise ModelError(
            f"{model} does not take images",
            got=f"an input of shape {sizes}",
            rule="its first input is [N, C, H, W], all but N fixed",
            fix="export it with a fixed image size",
        )
    return ModelOperators(
        names=tuple(sorted({node.op_type for node in graph.node})),
        shape=(sizes[1], sizes[2], sizes[3]),
    )


def check_target(name: str, model: Path, found: ModelOperators) -> OperatorSupport:
    """Compile the model for one target, in a folder that is thrown away."""
    target: Target = plugins.resolve("targets", name, where="targets").TARGET
    runtime = plugins.resolve("runtimes", target.runtime, where=name)
    ask = getattr(runtime, "available_for", None)
    available: Availability = ask(target.device) if ask else runtime.available()
    if not available.ok:
        return OperatorSupport(name, "unavailable", reason=f"run `{available.install}`")
    with tempfile.TemporaryDirectory(prefix="fettle-check-") as folder:
        try:
            entry = compile_untrained(target, runtime, model, Path(folder), found)
            placed = placement(runtime, Path(folder) / entry)
        except FettleError as err:
            lacking = named(str(err), found.names)
            return OperatorSupport(name, "lacks" if lacking else "refuses it", lacking, str(err))
        except Exception as err:  # a toolchain may raise anything about a model
            text = f"{type(err).__name__}: {err}"
            return OperatorSupport(name, "refuses it", named(text, found.names), text[:300])
    if placed is not None and placed.fallback:
        return OperatorSupport(name, "lacks", placed.fallback, "it would run them on the CPU")
    return OperatorSupport(name, "takes it")


def compile_untrained(
    target: Target, runtime: ModuleType, model: Path, out: Path, found: ModelOperators
) -> str:
    """Compile the model as export does, noise in place of training images."""
    precision = precisions.named(target.precision)
    if not hasattr(runtime, "compile_for"):
        entry: str = runtime.compile(model, out, bf16=precision.in_bfloat16)
        return entry
    noise = np.random.default_rng(1).normal(size=(NOISE_IMAGES, *found.shape)).astype(np.float32)
    by_itself = target.dialect in precision.toolchain_dialects
    request = CompileRequest(
        device=target.device,
        precision=target.precision,
        dialect=target.dialect,
        calibration=noise if by_itself else None,
    )
    made: str = runtime.compile_for(model, out, request=request)
    return made


def placement(runtime: ModuleType, entry: Path) -> Placement | None:
    """Ask which operators the accelerator runs; None where the runtime has no such notion."""
    ask = getattr(runtime, "placement", None)
    placed: Placement | None = ask(entry) if ask else None
    return placed


def named(text: str, operators: Sequence[str]) -> tuple[str, ...]:
    """Pick the model's operators that a toolchain's words name, as whole words: "Erf", not "erf".

    What follows "Fix:" is our own advice.
    """
    said = re.findall(r"[A-Za-z0-9_]+", text.partition(" Fix: ")[0])
    return tuple(name for name in operators if name in said)
