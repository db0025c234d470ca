"""One file per toolchain that runs a model; `Runtime` below is what each offers. No torch.

A release carries a runtime's file in its sources, so these files import nothing of fettle but
`fettle.errors`, and their toolchain only inside functions: it may be absent. A toolchain too heavy,
or at odds with the others, has an environment of its own: see isolated/. Optional beside it:

    profile(entry, *, threads) -> Profiler  load it with the toolchain's own profiler on
    unoptimised(entry, *, threads) -> Session   load it with graph optimisation off
    TOOLCHAIN: isolated.Toolchain           it has an environment of its own; then also
    peak_bytes(entry, *, threads, shape) -> int   what a model adds to its memory at the peak

and for targets whose evidence is not "measured" (fettle/hardware/targets/__init__.py): `open` then
gives a Session that an emulator or a simulator answers, and it is never timed.

    compile_for(model, out, *, request) -> str  in place of `compile`, where one runtime serves many
                                            devices, or quantizes by itself (CompileRequest)
    available_for(device) -> Availability   in place of `available`, where devices differ in what
                                            they need
    placement(entry) -> Placement           which operators the accelerator runs, which fell back
    estimates(entry) -> tuple[Estimate, …]  a vendor's figures: cycles, SRAM, LUT
    DIALECTS: tuple[str, ...]               of int8 files that it takes; without it, all that are
                                            no toolchain's own (Precision.toolchain_dialects)
    INT8_ONLY: bool                         `compile` refuses: it makes int8 of calibration images
    ANSWERED_BY: str                        the emulator or simulator that answers, in words
    COMPILE_ONLY: bool                      nothing here runs what it compiles
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fettle.errors import ModelError

Floats = npt.NDArray[np.float32]
Shape = tuple[int | None, ...]  # None: any size


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a toolchain may be used here; when not, `reason` says why, `install` how to."""

    ok: bool
    version: str | None
    reason: str | None
    install: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """What a target asks of `compile_for`: `device` is its record's, in the toolchain's own words.

    `calibration` are normalised training images [n, C, H, W] where the toolchain quantizes by
    itself (Precision.toolchain_dialects), else None: the model is then in the precision already.
    """

    device: str
    precision: str
    dialect: str | None
    calibration: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Placement of a file's operators: the share that the accelerator runs, and the fallback, which
    the CPU would run in its place.
    """

    share: float
    fallback: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure that a vendor's tool worked out without the hardware: never a measured latency."""

    what: str
    value: float
    unit: str
    tool: str


class Session(Protocol):
    """A loaded model. `input_shape` is [N, C, H, W] with None where any size is taken."""

    input_shape: Shape

    def run(self, batch: Floats) -> Floats:
        """Return the logits float32 [N, classes] of a batch float32 [N, C, H, W].

        Raises ModelError when the batch does not fit the model.
        """


class Runtime(Protocol):
    """What a file of this folder offers: a module of it is one (tests/contracts hold each to it).

    `PACKAGES` are the packages whose versions change what it compiles or how it runs.
    """

    PACKAGES: tuple[str, ...]

    def available(self) -> Availability:
        """Tell whether this toolchain may be used here, and if not, why. Imports nothing."""

    def toolkit(self) -> object:
        """Make sure that it can be used; raises TargetError when it is absent."""

    def compile(self, model: Path, out: Path, *, bf16: bool = False) -> str:
        """Make its file(s) of an ONNX under `out`; return the entry's name.

        With `bf16`, what is float is computed in bfloat16. Raises ModelError when it cannot.
        """

    def open(self, entry: Path, *, threads: int) -> Session:
        """Load that entry; raises ModelError when it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One node as a runtime executed it: `name` as the runtime calls it, `ms` its median time."""

    name: str
    kind: str
    int8: bool
    ms: float


class Profiler(Protocol):
    """A loaded model whose runtime times each node. The times include the profiler's own cost."""

    def run(self, batch: Floats) -> object:
        """Run a batch float32 [N, C, H, W] once."""

    def kernels(self) -> list[Kernel]:
        """Stop; return the nodes of the runs so far, in the order they were executed."""


def runs_beside_fettle(runtime: ModuleType) -> bool:
    """Say whether a runtime shares fettle's own environment and runs what it compiles here.

    The float model is timed in each of these: what is compressed has to beat the best of them.
    """
    return not hasattr(runtime, "TOOLCHAIN") and not hasattr(runtime, "COMPILE_ONLY")


def installed(package: str, install: str) -> Availability:
    """Look a package up without importing it."""
    try:
        return Availability(True, metadata.version(package), None, None)
    except metadata.PackageNotFoundError:
        return Availability(False, None, f"the package {package} is not installed", install)


def check_entry(entry: Path) -> None:
    """Raise ModelError when there is no such model file."""
    if not entry.is_file():
        raise ModelError(
            f"no model file {entry.name}",
            got=f"nothing at {entry}",
            fix="name the entry file that `compile` made, or run `fettle run` again",
        )


def run_checked(session: Session, run: Callable[[Floats], Floats], batch: Floats) -> Floats:
    """Run a batch that fits `session.input_shape`; a model of fixed batch 1 takes it one by one.

    Raises ModelError when shape or type do not fit, or the answer is not one row an image.
    """
    shape = session.input_shape
    fits = batch.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape[1:], batch.shape[1:], strict=True)
    )
    if not fits or batch.dtype != np.float32:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ModelError(
            "the batch does not fit the model",
            got=f"{batch.dtype} {list(batch.shape)}",
            rule=f"it takes float32 [{wanted}]",
            fix="set preprocess.size_px and preprocess.channels to what the model takes",
        )
    fixed = shape[0]
    if fixed == 1:
        logits = np.concatenate([run(batch[index : index + 1]) for index in range(len(batch))])
    elif fixed in (None, len(batch)):
        logits = run(batch)
    else:
        raise ModelError(
            "the model takes one batch size only",
            got=f"{len(batch)} images",
            rule=f"its batch is fixed at {fixed}",
            fix="export the model with a free batch dimension, or with batch 1",
        )
    if logits.ndim != 2 or len(logits) != len(batch):
        raise ModelError(
            "the model does not answer with one row of logits for each image",
            got=f"{list(logits.shape)} for a batch of {len(batch)}",
            rule="a classifier gives [images, classes]",
            fix="check preprocess.size_px (OpenVINO answers so when the image is too small for "
            "a pooling layer), or export the model with its classifier as the first output",
        )
    return logits
