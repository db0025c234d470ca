"""Make a target's own file of the compressed model: quantized if the target is int8, then compiled.

reads     ingest, validate (training images, to find the int8 ranges on), compress (model.onnx)
writes    the runtime's files; where the runtime is missing here, the ONNX it would compile
params    preprocess, export
refuses   calibration images that are constant, of one class, mislabelled or too few. A model that
          cannot be quantized or compiled for this target seals an artefact that says so, so that
          the other targets go on

The runtime's version is part of inputs/code/export/TARGET.json: one that was missing may be there
next time.

facts: target, hardware, runtime, version (of the runtime), precision, dialect; then either refused
(why the model cannot be had for this target), or entry (None when the runtime is missing, then
unavailable says why), size_bytes, parameters, macs, and for int8 calibration_images, calibrate (the
method), calibrate_errors {method: mean squared error of the logits}, kept_float (layers that went
back to float), disagreement (share of answers that differ from float, on disagreement_images),
quantized_ops and float_ops {operator: count} (these two for w16, w8 and dynamic_int8 as well).
For w4: calibration_images, kept_int8 (layers whose weights stay int8), disagreement,
disagreement_images, quantized_ops (weights in int4 or int8) and float_ops.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fettle import plugins
from fettle.bench import onnx_cost
from fettle.compress import _calibration, dynamic_int8, weight_fp16, weight_int4, weight_int8
from fettle.errors import ModelError
from fettle.params import Params
from fettle.recorder import Recorder
from fettle.runtimes import Availability
from fettle.serving.preprocess import Floats, Pixels
from fettle.targets import Target
from stages import _reading
from stages._contract import Inputs, Outputs
from stages._scoring import answers

READS = ("ingest", "validate", "compress")
SECTIONS = ("preprocess", "export")
MEASURES = False
PER_TARGET = True

CALIBRATION_BATCH = 32  # images at once; every activation of one batch is held in memory
HELD_OUT_MIN = 32  # fewer say little of a share of changed answers
# what needs no image; the others are fitted to training images
PLAIN = {"w16": weight_fp16, "w8": weight_int8, "dynamic_int8": dynamic_int8}
Facts = dict[str, Any]  # Any: JSON


@dataclass(frozen=True, slots=True)
class Calibration:
    """Normalised training images: to fit a precision to, and to measure its answers on."""

    batches: list[Floats]
    held_out: Floats
    count: int


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs:
    """Make the artefact; see the file's docstring."""
    name = str(inputs.target)
    target: Target = plugins.resolve("targets", name, where="targets").TARGET
    runtime = plugins.resolve("runtimes", target.runtime, where=f"fettle/targets/{name}.py")
    available: Availability = runtime.available()
    facts: Facts = {
        "target": name,
        "hardware": target.hardware,
        "runtime": target.runtime,
        "version": available.version,
        "precision": target.precision,
        "dialect": target.dialect,
    }
    try:
        model, quantized = to_precision(params, inputs, target, recorder)
        size = params.preprocess.size_px
        cost = onnx_cost.cost(model, shape=(params.preprocess.channels, size, size))
        recorder.progress(0.7, f"compiling for {target.runtime}")
        bf16 = target.precision == "bf16"
        entry = runtime.compile(model, out, bf16=bf16) if available.ok else None
    except ModelError as err:
        for left in out.iterdir():
            left.unlink()
        recorder.note("refused", str(err))
        return Outputs(facts={**facts, "refused": str(err)})
    if entry is None:
        shutil.copyfile(model, out / "model.onnx")
        facts["unavailable"] = f"{available.reason} (install: {available.install})"
    return Outputs(
        facts={
            **facts,
            **quantized,
            "entry": entry,
            "size_bytes": sum(path.stat().st_size for path in out.iterdir()),
            "parameters": cost.parameters,
            "macs": cost.macs,
        }
    )


def to_precision(
    params: Params, inputs: Inputs, target: Target, recorder: Recorder
) -> tuple[Path, Facts]:
    """Return the ONNX in the target's precision, and what quantizing it did."""
    model = inputs["compress"] / "model.onnx"
    if target.precision in ("fp32", "bf16"):  # bfloat16 is the runtime's doing
        return model, {}
    inputs.scratch.mkdir(parents=True, exist_ok=True)
    out = inputs.scratch / "model.onnx"
    if target.precision in PLAIN:
        stored = PLAIN[target.precision].apply(model, out)
        return out, {"quantized_ops": stored.quantized, "float_ops": stored.left}
    recorder.progress(0.1, f"fitting {target.precision} to training images")
    given = calibration(params, inputs, model)
    quantized = in_int4 if target.precision == "w4" else in_int8
    return out, {"calibration_images": given.count, **quantized(params, model, out, given)}


def calibration(params: Params, inputs: Inputs, model: Path) -> Calibration:
    """Read the training images that a precision is fitted to; raises DataError on useless ones."""
    count = params.export.calibration_images
    images = _reading.images(inputs, params, "train", most=2 * count)
    pixels, held_out = split(images.pixels, count)
    normalise = _reading.preprocess(params).normalise
    plain = plugins.resolve("runtimes", "ort", where="the float form").open(model, threads=1)
    labels = images.labels[: len(pixels)]
    _calibration.check(pixels, labels, answers(plain, params, pixels))
    starts = range(0, len(pixels), CALIBRATION_BATCH)
    batches = [normalise(pixels[at : at + CALIBRATION_BATCH]) for at in starts]
    return Calibration(batches, normalise(held_out), len(pixels))


def in_int4(params: Params, model: Path, out: Path, given: Calibration) -> Facts:
    """Write the int4 weights to `out`; return what that did."""
    stored = weight_int4.apply(
        model,
        out,
        batches=given.batches,
        held_out=given.held_out,
        disagreement_max=params.export.disagreement_max,
    )
    return {
        "kept_int8": list(stored.kept_int8),
        "disagreement": stored.disagreement,
        "disagreement_images": stored.images,
        "quantized_ops": stored.coverage.quantized,
        "float_ops": stored.coverage.left,
    }


def in_int8(params: Params, model: Path, out: Path, given: Calibration) -> Facts:
    """Write the int8 form to `out`; return what that did."""
    section = params.export
    tuned = _calibration.tune(
        model,
        out,
        batches=given.batches,
        held_out=given.held_out,
        calibrate=section.calibrate,
        weight_bits=section.weight_bits,
        disagreement_max=section.disagreement_max,
    )
    return {
        "calibrate": tuned.calibrate,
        "calibrate_errors": dict(tuned.errors),
        "kept_float": list(tuned.kept_float),
        "disagreement": tuned.disagreement,
        "disagreement_images": tuned.images,
        "quantized_ops": tuned.coverage.quantized,
        "float_ops": tuned.coverage.left,
    }


def split(pixels: Pixels, count: int) -> tuple[Pixels, Pixels]:
    """Take the first `count` images for the ranges, and the others to measure the answers on.

    Where too few are left the ranges' own images are measured on: their figures are optimistic.
    """
    rest = pixels[count:]
    return pixels[:count], rest if len(rest) >= HELD_OUT_MIN else pixels[:count]
