"""Make a target's own file of the compressed model: quantized if the target is int8, then compiled.

reads     ingest, validate (training images, to find the int8 ranges on), compress (model.onnx)
writes    the runtime's files; where the runtime is missing here, the ONNX it would compile
params    preprocess, export
refuses   calibration images that are constant, of one class, mislabelled or too few. A model that
          cannot be quantized or compiled for this target seals an artefact that says so, so that
          the other targets go on

inputs/machine.json is a dep: it holds the runtimes' versions, and a runtime that was missing may
be there next time.

facts: target, hardware, runtime, version (of the runtime), precision, dialect; then either refused
(why the model cannot be had for this target), or entry (None when the runtime is missing, then
unavailable says why), size_bytes, parameters, macs, and for int8 calibration_images, calibrate (the
method), calibrate_errors {method: mean squared error of the logits}, kept_float (layers that went
back to float), disagreement (share of answers that differ from float, on disagreement_images),
quantized_ops and float_ops {operator: count} (these two for w8 and dynamic_int8 as well).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from fettle import plugins
from fettle.bench import onnx_cost
from fettle.compress import _calibration, dynamic_int8, weight_int8
from fettle.errors import ModelError
from fettle.params import Params
from fettle.recorder import Recorder
from fettle.runtimes import Availability
from fettle.serving.preprocess import Pixels
from fettle.targets import Target
from stages import _reading
from stages._contract import Inputs, Outputs
from stages._scoring import answers

READS = ("ingest", "validate", "compress")
SECTIONS = ("preprocess", "export")
MEASURES = False

CALIBRATION_BATCH = 32  # images at once; every activation of one batch is held in memory
HELD_OUT_MIN = 32  # fewer say little of a share of changed answers
Facts = dict[str, Any]  # Any: JSON


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
    if target.precision in ("w8", "dynamic_int8"):
        technique = weight_int8 if target.precision == "w8" else dynamic_int8
        stored = technique.apply(model, out)
        return out, {"quantized_ops": stored.quantized, "float_ops": stored.left}
    recorder.progress(0.1, "finding the int8 ranges on training images")
    section = params.export
    images = _reading.images(inputs, params, "train", most=2 * section.calibration_images)
    pixels, held_out = split(images.pixels, section.calibration_images)
    normalise = _reading.preprocess(params).normalise
    batches = [
        normalise(pixels[at : at + CALIBRATION_BATCH])
        for at in range(0, len(pixels), CALIBRATION_BATCH)
    ]
    plain = plugins.resolve("runtimes", "ort", where="the float form").open(model, threads=1)
    labels = images.labels[: len(pixels)]
    _calibration.check(pixels, labels, answers(plain, params, pixels))
    tuned = _calibration.tune(
        model,
        out,
        batches=batches,
        held_out=normalise(held_out),
        calibrate=section.calibrate,
        weight_bits=section.weight_bits,
        disagreement_max=section.disagreement_max,
    )
    return out, {
        "calibration_images": len(pixels),
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
