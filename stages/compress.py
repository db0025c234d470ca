"""Compress the model by the recipe, given or searched for; end at one fp32 ONNX that answers alike.

reads     ingest, validate (training images to recover on, validation images to score), finetune
          (the float model: model.safetensors, or model.onnx when the family does not train),
          latency_table (when the recipe is searched for)
writes    model.onnx (input "input", output "logits"), layers.json (what went, layer by layer),
          reference.safetensors (input_pixels uint8 [n, C, S, S] of the first validation images,
          logits float32 [n, classes] that every later form of the model is held to); with
          `recipe: auto` also search.json (every recipe tried: fettle/facts/search_document.py);
          when the family trains also model.safetensors and plan.json (build the plan's family or
          the model's own, apply the plan, load the weights), and sensitivity.json (what the loss
          says to each block and group of the float model)
params    seed, preprocess, finetune (batch, augmentation, weight decay serve recovery too),
          compress, targets (the largest channel multiple), export.calibration_images
refuses   a model that cannot be traced, cut, trained to a finite loss, or lowered with parity

measures, all of the compressed model: accuracy, macro_f1, worst_recall, calibration_error and
accuracy_drop (against the float model) on validation; params_before, params_after, macs_before,
macs_after.
facts, layers.json and sensitivity.json: fettle/facts/compress_facts.py.

A kill repeats no finished recipe step and no finished epoch: both are kept in inputs.scratch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from fettle import manifest
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.evaluation import accuracy_statistics, passing_probability
from fettle.facts.answer_parity import AnswerParity
from fettle.facts.compress_facts import CompressFacts, LayerTable, SearchSummary
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.facts.ingest_facts import IngestFacts
from fettle.hardware import machine_fingerprint, operator_cost_table
from fettle.hardware.operator_cost_table import Costs
from fettle.lazy_array import RowArray
from fettle.measure import Measure
from fettle.params import Params
from fettle.params_schema import Options
from fettle.params_scope import DECIDED, INPUT_SIZE_PX
from fettle.preprocessing import Floats, Pixels
from fettle.recorder import Recorder
from fettle.release import verdict_ledger
from fettle.stage_contract import Inputs, Outputs

if TYPE_CHECKING:
    from fettle.recipes.recovery_training import CompressionJob

READS = ("ingest", "validate", "finetune", "latency_table")
SECTIONS = (
    "seed",
    "preprocess",
    "finetune",
    "compress",
    "export.calibration_images",
    "targets",
)
MEASURES = False

REFERENCE_IMAGES_MAX = 256  # above evaluate.parity_images' default; 256 at 64 px RGB is 3 MB


@dataclass(frozen=True, slots=True)
class CompressionData:
    """What the float model is (finetune's facts), and the images to recover and to score on."""

    facts: FinetuneFacts
    train: Images
    validation: Images


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[CompressFacts]:
    """Make the artefact; see the file's docstring."""
    facts = manifest.read(inputs["finetune"], FinetuneFacts, verify=False).facts
    validation = split_reader.images(inputs, params, "validation", recorder=recorder)
    if facts.trains:
        train = split_reader.images(inputs, params, "train", recorder=recorder)
        data = CompressionData(facts, train, validation)
        return compress_module(params, inputs, out, recorder, data=data)
    train = split_reader.images(inputs, params, "train", most=params.export.calibration_images)
    data = CompressionData(facts, train, validation)
    return copy_unchanged(params, inputs["finetune"] / "model.onnx", out, data)


def hand_on(
    facts: CompressFacts, finetune: FinetuneFacts, found: Mapping[str, object]
) -> CompressFacts:
    """Add what the search found, and what finetune decided: export reads no facts of finetune."""
    decided = {DECIDED: finetune.decided} if finetune.decided else {}
    return facts.model_copy(update={**found, **decided})


def images_digest(images: Images, most: int) -> str:
    """Digest (hex) of the row ids and pixels of the first `most` images, in order."""
    digest = hashlib.sha256()
    for row, pixels in zip(images.ids[:most], images.pixels[:most], strict=True):
        digest.update(json.dumps(row).encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def compress_module(
    params: Params,
    inputs: Inputs,
    out: Path,
    recorder: Recorder,
    *,
    data: CompressionData,
) -> Outputs[CompressFacts]:
    """Take the float module through the recipe and export it; torch is imported here."""
    # Read when torch loads its thread pool: idle threads then sleep instead of spinning.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from fettle.recipes import recipe_runner

    job = compression_job(params, inputs, recorder, data)
    job, searched = settle_recipe(job, inputs, out)
    done = recipe_runner.run_recipe(job)
    most = params.export.calibration_images
    job, done = recipe_runner.as_exported(
        job,
        done,
        lambda at, split: split_reader.images(
            inputs, at, split, most=most if split == "train" else None
        ),
    )
    images = job.validation
    reference = write_reference(out, images.pixels, done.after.logits)
    parity = recipe_runner.write_artefacts(job, done, out, reference)
    before, after = done.before.logits, done.after.logits
    return Outputs(
        measures={
            **accuracy_statistics.summary(after, images.labels),
            "accuracy_drop": accuracy_statistics.drop("accuracy", before, after, images.labels),
            **size_measures(done.before.size, done.after.size),
        },
        facts=hand_on(
            CompressFacts(
                classes=data.facts.classes,
                trains=True,
                calibration_digest=images_digest(job.train, most),
                recipe=tuple(job.recipe),
                steps=tuple(done.steps),
                parity=AnswerParity(**parity.to_dict()),
            ),
            data.facts,
            {**searched, **smaller_images(done.after.plan.input_size_px)},
        ),
    )


def smaller_images(size_px: int | None) -> dict[str, int]:
    """State the side of the images as a fact, where it is not the float model's."""
    return {} if size_px is None else {INPUT_SIZE_PX: size_px}


def settle_recipe(
    job: CompressionJob, inputs: Inputs, out: Path
) -> tuple[CompressionJob, dict[str, SearchSummary]]:
    """Settle the recipe, by a search where it is auto, beside the report that its time includes."""
    from fettle.recipes import recipe_search, sensitivity_report
    from fettle.recipes.search.search_clock import SearchClock

    clock = SearchClock(job.params.compress.search.wall_clock_max_s)
    sensitivity_report.write(job, out)  # a minute of a large network
    if job.params.compress.recipe != "auto":
        return job, {}
    tested = passing_probability.count_tested(inputs["validate"])
    found = recipe_search.search_recipe(job, tested, read_latency_tables(inputs), clock=clock)
    found.document.write(out / "search.json")
    note_search(inputs, found.recipe)
    return replace(job, recipe=found.recipe), {"search": found.document.summary()}


def compression_job(
    params: Params, inputs: Inputs, recorder: Recorder, data: CompressionData
) -> CompressionJob:
    """Compression job of the stage; where the recipe is searched for, it has no step yet."""
    from fettle.recipes.recovery_training import CompressionJob
    from fettle.recipes.teacher_answers import TeacherAnswers

    asked = params.compress.recipe
    return CompressionJob(
        params=params,
        recipe=[] if asked == "auto" else asked,
        facts=data.facts,
        weights=inputs["finetune"] / "model.safetensors",
        project=inputs.project,
        scratch=inputs.scratch,
        train=data.train,
        validation=data.validation,
        recorder=recorder,
        answers=TeacherAnswers(inputs.scratch),
    )


def note_search(inputs: Inputs, recipe: Sequence[Options]) -> None:
    """Note in the project's ledger that a search on this data found the recipe."""
    if not recipe:
        return
    data = manifest.read(inputs["ingest"], IngestFacts, verify=False).facts.digest
    verdict_ledger.append(
        verdict_ledger.place(inputs.project),
        verdict_ledger.LedgerLine(
            kind="search", data=data, recipe=verdict_ledger.recipe_key(recipe)
        ),
    )


def read_latency_tables(inputs: Inputs) -> dict[str, Costs]:
    """Latency tables of this machine, by target."""
    return operator_cost_table.read(
        inputs["latency_table"] / operator_cost_table.NAME, machine_fingerprint.fingerprint()
    )


def copy_unchanged(
    params: Params, model: Path, out: Path, data: CompressionData
) -> Outputs[CompressFacts]:
    """Hand an ONNX file on without a change; its reference is ONNX Runtime on that very file."""
    from fettle.hardware import onnx_cost
    from fettle.hardware.runtimes import ort
    from fettle.models import export_onnx

    shutil.copyfile(model, out / "model.onnx")
    session = ort.open(out / "model.onnx", threads=1)
    normalise, images = split_reader.preprocess(params).normalise, data.validation
    logits = np.concatenate([session.run(normalise(batch)) for batch in _batches(images.pixels)])
    reference = write_reference(out, images.pixels, logits)
    parity = export_onnx.compare_logits(logits[: len(reference)], reference)
    LayerTable(()).write(out / "layers.json")
    pre = params.preprocess
    cost = onnx_cost.cost(out / "model.onnx", shape=(pre.channels, pre.side_px, pre.side_px))
    size = (cost.parameters, cost.macs)
    return Outputs(
        measures={
            **accuracy_statistics.summary(logits, images.labels),
            **size_measures(size, size),
        },
        facts=hand_on(
            CompressFacts(
                classes=data.facts.classes,
                trains=False,
                calibration_digest=images_digest(data.train, params.export.calibration_images),
                recipe=(),
                steps=(),
                parity=AnswerParity(**parity.to_dict()),
            ),
            data.facts,
            {},
        ),
    )


def size_measures(before: tuple[int, int], after: tuple[int, int]) -> dict[str, Measure]:
    """Name (parameters, multiply-accumulates for one image) before and after as Measures."""
    return {
        "params_before": Measure(value=before[0], unit="parameters", n=1),
        "params_after": Measure(value=after[0], unit="parameters", n=1),
        "macs_before": Measure(value=before[1], unit="macs", n=1),
        "macs_after": Measure(value=after[1], unit="macs", n=1),
    }


def write_reference(out: Path, pixels: RowArray[np.uint8], logits: Floats) -> Floats:
    """Write reference.safetensors with the first rows of validation; return their logits."""
    kept = np.ascontiguousarray(logits[:REFERENCE_IMAGES_MAX], dtype=np.float32)
    first = np.ascontiguousarray(pixels[:REFERENCE_IMAGES_MAX])
    save_file({"input_pixels": first, "logits": kept}, out / "reference.safetensors")
    return kept


def _batches(pixels: RowArray[np.uint8], images: int = 64) -> Iterator[Pixels]:
    return (pixels[start : start + images] for start in range(0, len(pixels), images))
