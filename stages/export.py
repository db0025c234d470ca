"""Make a target's own file of the compressed model: quantized if the target is int8, then compiled.

reads     ingest, validate (training images, to find the int8 ranges on), compress (model.onnx)
writes    the runtime's files; where the runtime is missing here, the ONNX it would compile
params    preprocess, export
refuses   nothing but unreadable inputs: calibration images that are constant, of one class,
          mislabelled or too few, and a model that cannot be quantized or compiled for this target,
          seal an artefact that says so, and the other targets go on

inputs/toolchain/TARGET.json is a dep: it holds the runtime's versions, and a runtime that was
missing may be there next time. So is inputs/machine.json: a file may be compiled for one CPU.

facts: fettle/facts/export_facts.py.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from fettle import manifest, plugins
from fettle.data import split_reader
from fettle.errors import TargetError
from fettle.evaluation import target_refusal
from fettle.evaluation.batch_scoring import predict_logits
from fettle.facts.compress_facts import CompressFacts
from fettle.facts.export_facts import ExportFacts
from fettle.hardware import onnx_cost, precisions
from fettle.hardware.runtimes import Availability, CompileRequest
from fettle.hardware.targets import Target
from fettle.params import Params
from fettle.params_scope import INPUT_SIZE_PX
from fettle.preprocessing import Floats, Pixels
from fettle.quantize import calibration_image_checks
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

READS = ("ingest", "validate", "compress")
SECTIONS = ("preprocess", "export")
MEASURES = False
PER_TARGET = True

CALIBRATION_BATCH = 32  # images at once; every activation of one batch is held in memory
HELD_OUT_MIN = 32  # fewer say little of a share of changed answers


@dataclass(frozen=True, slots=True)
class Calibration:
    """Normalised training images: to fit a precision to, and to measure its answers on."""

    batches: list[Floats]
    held_out: Floats
    count: int


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[ExportFacts]:
    """Make the artefact; see the file's docstring."""
    name = str(inputs.target)
    target: Target = plugins.resolve("targets", name, where="targets").TARGET
    runtime = plugins.resolve(
        "runtimes", target.runtime, where=f"fettle/hardware/targets/{name}.py"
    )
    available = availability(runtime, target)
    facts = ExportFacts(
        target=name,
        hardware=target.hardware,
        runtime=target.runtime,
        version=available.version,
        precision=target.precision,
        dialect=target.dialect,
    )
    side = manifest.read(inputs["compress"], CompressFacts, verify=False).facts.input_size_px
    if side is not None:
        facts = facts.model_copy(update={INPUT_SIZE_PX: side})
    try:
        refuse_dialect(runtime, target)
        model, quantized = to_precision(params, inputs, target, recorder)
        size = params.preprocess.side_px
        cost = onnx_cost.cost(model, shape=(params.preprocess.channels, size, size))
        recorder.progress(0.7, f"compiling for {target.runtime}")
        entry = compile_for(params, inputs, target, model, out) if available.ok else None
    except Exception as err:  # a toolchain may raise anything: see target_refusal
        refused = target_refusal.refusal_reason(err)
        shutil.rmtree(out)
        out.mkdir()
        recorder.note("refused", refused)
        return Outputs(facts=facts.model_copy(update={"refused": refused}))
    made: dict[str, object] = {**quantized, "entry": entry}
    if entry is None:
        shutil.copyfile(model, out / "model.onnx")
        made["unavailable"] = f"{available.reason} (install: {available.install})"
    made["size_bytes"] = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    made |= {"parameters": cost.parameters, "macs": cost.macs}
    return Outputs(
        facts=ExportFacts.model_validate(facts.model_dump(exclude_unset=True) | made, strict=False)
    )


def availability(runtime: ModuleType, target: Target) -> Availability:
    """Ask whether the toolchain can be used here, for this target's device where it has several."""
    if hasattr(runtime, "available_for"):
        found: Availability = runtime.available_for(target.device)
        return found
    own: Availability = runtime.available()
    return own


def refuse_dialect(runtime: ModuleType, target: Target) -> None:
    """Refuse a record whose runtime does not take its int8 dialect; raises TargetError.

    Such a file may compile and answer nonsense, or be the float model under int8's name.
    """
    precision = precisions.named(target.precision)
    others = [name for name in precision.dialects if name not in precision.toolchain_dialects]
    taken = getattr(runtime, "DIALECTS", tuple(others))
    if target.dialect is not None and target.dialect not in taken:
        raise TargetError(
            f"{target.runtime} does not take {target.precision} files of this dialect",
            got=target.dialect,
            rule=f"it takes {' or '.join(taken)}",
            fix="set the dialect, or the runtime, in the target's record",
        )


def compile_for(params: Params, inputs: Inputs, target: Target, model: Path, out: Path) -> str:
    """Compile the model to `out`; return the entry's name."""
    runtime = plugins.resolve("runtimes", target.runtime, where="the target's runtime")
    precision = precisions.named(target.precision)
    if not hasattr(runtime, "compile_for"):
        entry: str = runtime.compile(model, out, bf16=precision.in_bfloat16)
        return entry
    by_itself = target.dialect in precision.toolchain_dialects
    request = CompileRequest(
        device=target.device,
        precision=target.precision,
        dialect=target.dialect,
        calibration=np.concatenate(calibration(params, inputs, model).batches)
        if by_itself
        else None,
    )
    made: str = runtime.compile_for(model, out, request=request)
    return made


def to_precision(
    params: Params, inputs: Inputs, target: Target, recorder: Recorder
) -> tuple[Path, dict[str, object]]:
    """Return the ONNX in the target's precision, and the facts of how it was quantized."""
    model = inputs["compress"] / "model.onnx"
    precision = precisions.named(target.precision)
    quantize = precisions.load_quantizer(precision)
    if quantize is None or target.dialect in precision.toolchain_dialects:
        return model, {}
    inputs.scratch.mkdir(parents=True, exist_ok=True)
    out = inputs.scratch / "model.onnx"
    settings = {name: getattr(params.export, name) for name in precision.settings}
    if len(precision.dialects) > 1:
        settings["dialect"] = target.dialect
    if not precision.needs_calibration:
        return out, dict(quantize(model, out, **settings).facts())
    recorder.progress(0.1, f"fitting {precision.name} to training images")
    given = calibration(params, inputs, model)
    stored = quantize(model, out, batches=given.batches, held_out=given.held_out, **settings)
    return out, {"calibration_images": given.count, **stored.facts()}


def calibration(params: Params, inputs: Inputs, model: Path) -> Calibration:
    """Read the training images that a precision is fitted to; raises DataError on useless ones."""
    count = params.export.calibration_images
    images = split_reader.images(inputs, params, "train", most=2 * count)
    pixels, held_out = split(images.pixels[:], count)
    normalise = split_reader.preprocess(params).normalise
    plain = plugins.resolve("runtimes", "ort", where="the float form").open(model, threads=1)
    labels = images.labels[: len(pixels)]
    calibration_image_checks.check(pixels, labels, predict_logits(plain, params, pixels))
    starts = range(0, len(pixels), CALIBRATION_BATCH)
    batches = [normalise(pixels[start : start + CALIBRATION_BATCH]) for start in starts]
    return Calibration(batches, normalise(held_out), len(pixels))


def split(pixels: Pixels, count: int) -> tuple[Pixels, Pixels]:
    """Take the first `count` images for the ranges, and the others to measure the answers on.

    Where too few are left the ranges' own images are measured on: their figures are optimistic.
    """
    rest = pixels[count:]
    return pixels[:count], rest if len(rest) >= HELD_OUT_MIN else pixels[:count]
