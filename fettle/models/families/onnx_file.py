"""A trained ONNX classifier as it is: no training and no torch; checked, then handed on.

    finetune:
      family: onnx_file
      options: {path: models/angle.onnx, labels: ["0", "180"]}

It takes float32 [batch, C, S, S]; C and S must be preprocess.channels and preprocess.size_px, a
free side is fixed to size_px. Its one output is [batch, classes]. `compress.recipe` must be [].
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fettle import licences
from fettle.errors import ModelError
from fettle.local_settings import choose, expand
from fettle.models import onnx_checks, onnx_rewriting, user_code
from fettle.models.input_record import InputRecord
from fettle.params import Strict

if TYPE_CHECKING:
    from onnx import ModelProto

TRAINS = False

Floats = npt.NDArray[np.float32]

_PROBES = 3  # images that the graph must answer alike before and after
_SEED = 20  # of these images only
# Share of the largest answer: two ways through one graph differ by rounding, 1e-6 or so.
_TOLERANCE = 1e-4


class Params(Strict):
    """Where the file lies (or `fettle run --model FILE`), and what its outputs mean.

    `labels` lists the class names in the order of the model's outputs; null is sorted order.
    """

    path: str | None = None
    labels: list[str] | None = None


def path(options: Params, project: Path) -> Path:
    """Return the file of inputs/local.yaml or of the options.

    Raises ModelError when none is named or none is there, ProjectError when they name two.
    """
    given = choose(project, "model", options.path)
    if given is None:
        raise ModelError(
            "finetune.options.path: no model is named",
            rule="the family onnx_file takes a trained ONNX file",
            fix="set finetune.options.path to it",
        )
    file = user_code.resolve(project, given)
    whole = Path(os.environ.get("FETTLE_ROOT", project)) / expand(given, "model")
    if whole.is_file() and _lacks_weights(file):
        file = whole  # a workspace may have a copy of the graph alone
    if not file.is_file():
        raise ModelError(
            "finetune.options.path: no such file",
            got=str(file),
            fix="give the path of an ONNX file, absolute or from the project's folder",
        )
    return file


def input_record(options: Params, project: Path) -> InputRecord:
    """State the side that the file's input names, if it names one."""
    proto = onnx_checks.read(path(options, project))
    sides = {one.dim_value for one in proto.graph.input[0].type.tensor_type.shape.dim[2:]}
    fixed = sides.pop() if len(sides) == 1 else 0
    return InputRecord(native=False, fixed_px=fixed or None)


def licence(options: Params, project: Path) -> str | None:
    """State what a file LICENSE beside the model says."""
    return licences.beside(path(options, project))


def files(options: Params, project: Path) -> list[Path]:
    """List the files the model depends on: the ONNX, those that hold its weights, its licence."""
    file = path(options, project)
    stated = licences.file_beside(file)
    return [file, *onnx_checks.external_files(file), *([stated] if stated else [])]


def _lacks_weights(file: Path) -> bool:
    try:
        onnx_checks.external_files(file)
    except ModelError:
        return True
    return False


@dataclass(frozen=True, slots=True)
class AdoptedModel:
    """The model in house form, how many weights it has, what was done to it in plain words."""

    proto: ModelProto
    parameters: int
    notes: tuple[str, ...]


def adopt(
    source: Path, *, channels: int, size_px: int, classes: list[str], labels: list[str] | None
) -> AdoptedModel:
    """Read, check and normalise a file; `classes` are the data's, sorted.

    The result has one input "input" float32 [batch, C, S, S] and one output "logits"
    [batch, classes] in sorted class order, in opset 13 or newer. Raises ModelError when the file
    is no sound ONNX, when its input or outputs do not fit, or when labels are not the classes.
    """
    given = onnx_checks.read(source)
    onnx_checks.check_input(given, channels=channels, size_px=size_px)
    shape = (_PROBES, channels, size_px, size_px)
    probe = np.random.default_rng(_SEED).normal(size=shape).astype(np.float32)
    reference = _answers(given, probe)
    if reference is None:
        raise ModelError(
            f"ONNX Runtime does not run {source.name}",
            got=f"no answer to an image of {list(probe.shape[1:])}",
            rule="it must run on the CPU, one image at a time",
            fix="try it with onnxruntime.InferenceSession in a Python shell",
        )
    rank, reference = reference.ndim, reference.reshape(_PROBES, -1)
    order = onnx_checks.output_order(classes, labels, width=reference.shape[1])

    proto, notes = _without_control_flow(given, channels=channels, size_px=size_px)
    proto = onnx_rewriting.raise_opset(proto)
    onnx_rewriting.rename(proto)
    if rank > 2:
        onnx_rewriting.flatten_output(proto)
    if order != sorted(order):
        onnx_rewriting.reorder_output(proto, order)
        notes.append("the outputs are put into sorted class order")
    onnx_rewriting.strip(proto)
    proto, fixed = _settle_batch(proto, probe, reference[:, order])
    return AdoptedModel(proto, onnx_rewriting.parameters(proto), tuple(notes + fixed))


def _answers(proto: ModelProto, probe: Floats) -> Floats | None:
    """Answer one image after the other; None when one fails."""
    answers = [
        onnx_rewriting.run_model(proto, probe[index : index + 1]) for index in range(len(probe))
    ]
    whole = [answer for answer in answers if answer is not None]
    return np.concatenate(whole) if len(whole) == len(answers) else None


def _without_control_flow(
    given: ModelProto,
    *,
    channels: int,
    size_px: int,
) -> tuple[ModelProto, list[str]]:
    """Fix the sides, then fold away the branches that depend on them, with a free batch first."""
    free, single = (
        onnx_rewriting.fix_shape(given, channels=channels, size_px=size_px, batch=batch)
        for batch in ("batch", 1)
    )
    kinds = ", ".join(onnx_rewriting.control_flow(free))
    if not kinds:
        return free, []
    for candidate in (free, single):
        folded = onnx_rewriting.fold_constants(candidate)
        if not onnx_rewriting.control_flow(folded):
            return folded, [f"control flow ({kinds}) depended on the image size: folded away"]
    return free, [f"control flow stays in the graph: {kinds}"]


def _settle_batch(
    proto: ModelProto,
    probe: Floats,
    reference: Floats,
) -> tuple[ModelProto, list[str]]:
    """Keep the free batch if the graph really takes one, else fix it to 1; check the answers."""
    limit = _TOLERANCE * max(float(np.abs(reference).max()), 1e-30)

    def right(answers: Floats | None) -> bool:
        return answers is not None and bool(np.abs(answers - reference).max() <= limit)

    _, channels, size_px, _ = probe.shape
    free, single = (
        onnx_rewriting.fix_shape(proto, channels=channels, size_px=size_px, batch=batch)
        for batch in ("batch", 1)
    )
    for candidate in (free, single):
        onnx_rewriting.declare_output(candidate, classes=reference.shape[1])
    if right(onnx_rewriting.run_model(free, probe)):
        return free, []
    if not right(_answers(single, probe)):
        raise ModelError(
            "the ONNX model answers differently once its image size is fixed",
            got=f"images of {list(probe.shape[1:])}",
            rule="fixing the size may not change an answer",
            fix="export it for a fixed image size",
        )
    return single, ["the graph takes one image at a time: its batch is fixed to 1"]
