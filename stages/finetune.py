"""Fine-tune a family's network on the training images, or take a trained ONNX file as it is.

reads     ingest, validate (training and validation images)
writes    model.onnx (float32; input "input" [batch, C, S, S], output "logits" [batch, classes]),
          curve.json, and when the family trains model.safetensors (the state dict)
params    seed, preprocess, finetune
refuses   weights or user code that do not load; a loss that is not finite; a model that does not
          lower to ONNX with parity; an ONNX file that does not fit the images and classes

measures, all on validation: accuracy, macro_f1, worst_recall, calibration_error, recall.<class>.
facts and curve.json: fettle/facts/finetune_facts.py.

Each epoch is kept in inputs.scratch: a killed run goes on, and ends with the same weights. Torch
is imported only for a family that trains.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from fettle import licences, plugins
from fettle.data import image_table, split_reader
from fettle.data.split_reader import Images
from fettle.evaluation import accuracy_statistics
from fettle.facts.answer_parity import AnswerParity
from fettle.facts.finetune_facts import CurveEpoch, FinetuneFacts, TrainingCurve
from fettle.models import export_onnx
from fettle.models.input_record import InputRecord
from fettle.params import Params, Strict
from fettle.params_schema import Options
from fettle.params_scope import DECIDED, settle
from fettle.preprocessing import Floats
from fettle.recipes import float_model_training, input_choice
from fettle.recipes.training_setup import threads, training_data
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

if TYPE_CHECKING:
    from torch import nn

    from fettle.training.training_plan import Epoch, TrainingData, TrainingPlan

READS = ("ingest", "validate")
SECTIONS = ("seed", "preprocess", "finetune")
MEASURES = False

CURVE = "curve.json"
PARITY_IMAGES_MAX = 64  # of validation; parity is a matter of the graph, not of the data
# Options that say where weights come from: from here on they come from model.safetensors.
WEIGHT_OPTIONS = ("path", "weights")


@dataclass(frozen=True, slots=True)
class FinetuneJob:
    """Fine-tuning job: what both ways of getting a model need; `options` are the family's own."""

    params: Params
    family: ModuleType
    options: Strict  # the family's Params: each family has its own class
    inputs: Inputs
    out: Path
    recorder: Recorder
    train: Images
    validation: Images
    decided: dict[str, JsonValue]  # what became of `auto` in the params, so far


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs[FinetuneFacts]:
    """Make the artefact; see the file's docstring."""
    family = plugins.resolve("families", params.finetune.family, where="finetune.family")
    options = family.Params.model_validate_json(json.dumps(params.finetune.options))
    decided = decide_input(params, family.input_record(options, inputs.project), inputs, recorder)
    params = settle(params, decided)
    job = FinetuneJob(
        params=params,
        family=family,
        options=options,
        inputs=inputs,
        out=out,
        recorder=recorder,
        train=split_reader.images(inputs, params, "train", recorder=recorder),
        validation=split_reader.images(inputs, params, "validation", recorder=recorder),
        decided=decided,
    )
    logits, facts = fine_tune(job) if family.TRAINS else adopt_onnx_file(job)
    labels, classes = job.validation.labels, job.validation.classes
    recalls = accuracy_statistics.recall_measures(logits, labels, classes)
    return Outputs(
        measures=accuracy_statistics.summary(logits, labels)
        | {f"recall.{name}": measure for name, measure in recalls.items()},
        facts=facts,
    )


def decide_input(
    params: Params, record: InputRecord, inputs: Inputs, recorder: Recorder
) -> dict[str, JsonValue]:
    """Decide what is `auto` by the training images' sizes and the family's record, and say it."""
    sides = image_table.shorter_sides(inputs["ingest"], inputs["validate"], "train")
    decided, said = input_choice.choose(params, record, sides)
    for line in said:
        recorder.note("decision", line)
    return decided


def adopt_onnx_file(job: FinetuneJob) -> tuple[Floats, FinetuneFacts]:
    """Adopt a trained ONNX file; return its validation logits and its facts."""
    adopted = job.family.adopt(
        job.family.path(job.options, job.inputs.project),
        channels=job.params.preprocess.channels,
        size_px=job.params.preprocess.side_px,
        classes=job.train.classes,
        labels=job.options.model_dump()["labels"],
    )
    model = job.out / "model.onnx"
    model.write_bytes(adopted.proto.SerializeToString(deterministic=True))
    TrainingCurve(()).write(job.out / CURVE)
    for note in adopted.notes:
        job.recorder.note("onnx_file", note)
    normalise = split_reader.preprocess(job.params).normalise
    logits = np.concatenate(
        [
            export_onnx.run_onnx(model, normalise(job.validation.pixels[start : start + 256]))
            for start in range(0, len(job.validation.pixels), 256)
        ]
    )
    facts = FinetuneFacts(
        family=job.params.finetune.family,
        options=_architecture(job.params.finetune.options),
        classes=tuple(job.validation.classes),
        channels=job.params.preprocess.channels,
        size_px=job.params.preprocess.side_px,
        trains=False,
        epochs=0,
        params=adopted.parameters,
        notes=tuple(adopted.notes),
        licence=licences.stated(job.family, job.options, job.inputs.project),
    )
    return logits, facts.model_copy(update=_stated(job.decided))


def _stated(decided: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """State what was decided as a fact; a run in which nothing was `auto` has none."""
    return {DECIDED: decided} if decided else {}


def fine_tune(job: FinetuneJob) -> tuple[Floats, FinetuneFacts]:
    """Train, save and lower; return the validation logits and the facts."""
    # Read when torch loads its thread pool: idle threads sleep instead of spinning, without which
    # two threads on a busy machine train five times slower than one (measured).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch
    from safetensors.torch import save_file

    from fettle.training import inference, training_checkpoint

    torch.set_num_threads(threads())
    torch.manual_seed(job.params.seed)
    model: nn.Module = job.family.build(
        job.options,
        classes=len(job.train.classes),
        channels=job.params.preprocess.channels,
        size_px=job.params.preprocess.side_px,
        project=job.inputs.project,
    )
    plan = float_model_training.training_plan(job.params)
    _dry_run(job, model, plan)
    trained = float_model_training.train(
        float_model_training.FloatModelJob(
            params=job.params,
            family=job.family,
            train=job.train,
            validation=job.validation,
            scratch=job.inputs.scratch,
            recorder=job.recorder,
        ),
        model,
        plan,
    )
    data = training_data(job.params, train=job.train, validation=job.validation)
    if plan.imbalance == "thresholds":
        _fold_thresholds(job, model, data)
    model.to("cpu")
    logits = inference.logits(model, data.validation_pixels, data.normalise)
    save_file(training_checkpoint.detached(model.state_dict()), job.out / "model.safetensors")
    TrainingCurve(tuple(_curve_row(epoch) for epoch in trained.curve)).write(job.out / CURVE)
    decided = {**job.decided, **trained.decided}
    facts = FinetuneFacts(
        family=job.params.finetune.family,
        options=_architecture(job.params.finetune.options),
        classes=tuple(job.validation.classes),
        channels=job.params.preprocess.channels,
        size_px=job.params.preprocess.side_px,
        trains=True,
        epochs=len(trained.curve),
        best_epoch=trained.best_epoch,
        params=sum(p.numel() for p in model.parameters()),
        parity=AnswerParity(**_lower(job, model, logits).to_dict()),
        notes=(),
        licence=licences.stated(job.family, job.options, job.inputs.project),
    )
    chosen = {"fine_tuning": trained.chosen} if trained.chosen else {}
    return logits, facts.model_copy(update={**chosen, **_stated(decided)})


def _curve_row(epoch: Epoch) -> CurveEpoch:
    return CurveEpoch(
        epoch=epoch.epoch,
        phase=epoch.phase,
        train_loss=epoch.train_loss,
        validation_loss=epoch.validation_loss,
        validation_accuracy=epoch.validation_accuracy,
        learning_rate=epoch.learning_rate,
    )


def _dry_run(job: FinetuneJob, model: nn.Module, plan: TrainingPlan) -> None:
    """Dry run on the untrained model of what follows training, so that it cannot fail after it.

    Families of ours are known to lower; raises ModelError.
    """
    from fettle.training import class_balance, inference

    normalise = split_reader.preprocess(job.params).normalise
    if plan.imbalance == "thresholds":
        head = job.family.protected(model)[-1]
        pixels = job.validation.pixels[:PARITY_IMAGES_MAX]
        class_balance.check_offsets_fold(head, lambda: inference.logits(model, pixels, normalise))
    if hasattr(job.family, "files"):
        job.inputs.scratch.mkdir(parents=True, exist_ok=True)
        export_onnx.export(
            model,
            channels=job.params.preprocess.channels,
            size_px=job.params.preprocess.side_px,
            out=job.inputs.scratch / "rehearsal.onnx",
        )


def _fold_thresholds(job: FinetuneJob, model: nn.Module, data: TrainingData) -> None:
    """Move the classes' thresholds by validation, inside the head's bias."""
    from fettle.training import class_balance, inference

    logits = inference.logits(model, data.validation_pixels, data.normalise)
    amounts = class_balance.offsets(logits, data.validation_labels, data.train_labels)
    class_balance.fold_offsets(job.family.protected(model)[-1], amounts)
    shown = ", ".join(
        f"{name} {amount:+.2f}" for name, amount in zip(job.train.classes, amounts, strict=True)
    )
    job.recorder.note("logit_offsets", shown)


def _lower(job: FinetuneJob, model: nn.Module, logits: Floats) -> export_onnx.Parity:
    """Write model.onnx and hold it to the module's own logits on validation images."""
    path = job.out / "model.onnx"
    export_onnx.export(
        model,
        channels=job.params.preprocess.channels,
        size_px=job.params.preprocess.side_px,
        out=path,
    )
    pixels = job.validation.pixels[:PARITY_IMAGES_MAX]
    batch = split_reader.preprocess(job.params).normalise(pixels)
    parity = export_onnx.parity(path, batch, logits[:PARITY_IMAGES_MAX])
    export_onnx.check_parity(parity, what="model.onnx")
    return parity


def _architecture(options: Options) -> Options:
    return {key: value for key, value in options.items() if key not in WEIGHT_OPTIONS}
