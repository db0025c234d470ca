"""Fine-tune a family's network on the training images, or take a trained ONNX file as it is.

reads     ingest, validate (training and validation images)
writes    model.onnx (float32; input "input" [batch, C, S, S], output "logits" [batch, classes]),
          curve.json (one entry an epoch; empty when nothing is trained), and when the family
          trains model.safetensors (the state dict)
params    seed, preprocess, finetune
refuses   weights or user code that do not load; a loss that is not finite; a model that does not
          lower to ONNX with parity; an ONNX file that does not fit the images and classes

measures, all on validation: accuracy, macro_f1, worst_recall, calibration_error, recall.<class>.
facts: family, options (what rebuilds the network; its weights are model.safetensors), classes,
channels, size_px, trains, epochs, best_epoch, params, parity, notes; `decided`, what became of
`auto` in the params, which later stages read; and where choice images were held out of training,
`fine_tuning`: what they chose, and how the linear probe and the trained network fared on them.

Each epoch is kept in inputs.scratch: a killed run goes on, and ends with the same weights. Torch
is imported only for a family that trains.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fettle import manifest, plugins
from fettle.data import choice_images, image_table, split_reader
from fettle.data.split_reader import Images
from fettle.evaluation import accuracy_statistics
from fettle.models import export_onnx
from fettle.models.input_record import InputRecord
from fettle.params import Params
from fettle.params_scope import DECIDED, settle
from fettle.preprocessing import Floats
from fettle.recipes import input_choice
from fettle.recipes.training_setup import threads, training_data
from fettle.recorder import Recorder
from fettle.stage_contract import Inputs, Outputs

if TYPE_CHECKING:
    from torch import nn

    from fettle.training.fine_tuning import FineTuned
    from fettle.training.training_plan import Epoch, TrainingData, TrainingPlan

READS = ("ingest", "validate")
SECTIONS = ("seed", "preprocess", "finetune")
MEASURES = False

PARITY_IMAGES_MAX = 64  # of validation; parity is a matter of the graph, not of the data
# Options that say where weights come from: from here on they come from model.safetensors.
WEIGHT_OPTIONS = ("path", "weights")


@dataclass(frozen=True, slots=True)
class FinetuneJob:
    """Fine-tuning job: what both ways of getting a model need; `options` are the family's own."""

    params: Params
    family: ModuleType
    options: Any  # the family's Params: each family has its own class
    inputs: Inputs
    out: Path
    recorder: Recorder
    train: Images
    validation: Images


def run(params: Params, inputs: Inputs, out: Path, recorder: Recorder) -> Outputs:
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
        train=split_reader.images(inputs, params, "train"),
        validation=split_reader.images(inputs, params, "validation"),
    )
    logits, facts = fine_tune(job) if family.TRAINS else adopt_onnx_file(job)
    decided |= facts.pop(DECIDED, {})
    labels, classes = job.validation.labels, job.validation.classes
    recalls = accuracy_statistics.recall_measures(logits, labels, classes)
    return Outputs(
        measures=accuracy_statistics.summary(logits, labels)
        | {f"recall.{name}": measure for name, measure in recalls.items()},
        facts={
            "family": params.finetune.family,
            "options": _architecture(params.finetune.options),
            "classes": classes,
            "channels": params.preprocess.channels,
            "size_px": params.preprocess.side_px,
            "trains": family.TRAINS,
            **facts,
            **({DECIDED: decided} if decided else {}),
        },
    )


def decide_input(
    params: Params, record: InputRecord, inputs: Inputs, recorder: Recorder
) -> dict[str, Any]:  # Any: JSON values of params
    """Decide what is `auto` in preprocess, by the training images' sizes, and say it."""
    sides = image_table.shorter_sides(inputs["ingest"], inputs["validate"], "train")
    decided, said = input_choice.choose(params, record, sides)
    for line in said:
        recorder.note("decision", line)
    return decided


def adopt_onnx_file(job: FinetuneJob) -> tuple[Floats, dict[str, Any]]:
    """Adopt a trained ONNX file; return its validation logits and its facts (Any: JSON)."""
    adopted = job.family.adopt(
        job.family.path(job.options, job.inputs.project),
        channels=job.params.preprocess.channels,
        size_px=job.params.preprocess.side_px,
        classes=job.train.classes,
        labels=job.options.labels,
    )
    model = job.out / "model.onnx"
    model.write_bytes(adopted.proto.SerializeToString(deterministic=True))
    manifest.write_json(job.out / "curve.json", [])
    for note in adopted.notes:
        job.recorder.note("onnx_file", note)
    normalise = split_reader.preprocess(job.params).normalise
    logits = np.concatenate(
        [
            export_onnx.run_onnx(model, normalise(job.validation.pixels[start : start + 256]))
            for start in range(0, len(job.validation.pixels), 256)
        ]
    )
    facts = {"epochs": 0, "params": adopted.parameters, "notes": list(adopted.notes)}
    return logits, facts


def fine_tune(job: FinetuneJob) -> tuple[Floats, dict[str, Any]]:
    """Train, save and lower; return the validation logits and the facts (Any: JSON)."""
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
    plan = training_plan(job.params)
    _dry_run(job, model, plan)
    curve, best_epoch, chosen = _train(job, model, plan)
    data = training_data(job.params, train=job.train, validation=job.validation)
    if plan.imbalance == "thresholds":
        _fold_thresholds(job, model, data)
    model.to("cpu")
    logits = inference.logits(model, data.validation_pixels, data.normalise)
    save_file(training_checkpoint.detached(model.state_dict()), job.out / "model.safetensors")
    manifest.write_json(job.out / "curve.json", [epoch.to_dict() for epoch in curve])
    facts = {
        "epochs": len(curve),
        "best_epoch": best_epoch,
        "params": sum(p.numel() for p in model.parameters()),
        "parity": _lower(job, model, logits).to_dict(),
        "notes": [],
        **chosen,
    }
    return logits, facts


def _train(
    job: FinetuneJob, model: nn.Module, plan: TrainingPlan
) -> tuple[list[Epoch], int, dict[str, Any]]:  # Any: JSON
    """Train; return the curve, its best epoch, and the facts of what choice images chose.

    Without choice images the validation split says which epoch is the best, as it always did.
    """
    from fettle.training import fine_tuning
    from fettle.training.training_loop import fit

    section, groups = job.params.finetune, job.family.groups(model)

    def report(epoch: Epoch) -> None:
        _report(job.recorder, epoch, epochs_max=plan.epochs_max, chosen=section.choice_fraction > 0)

    if not section.choice_fraction:
        data = training_data(job.params, train=job.train, validation=job.validation)
        fitted = fit(
            model,
            data=data,
            plan=plan,
            groups=groups,
            scratch=job.inputs.scratch,
            on_epoch=report,
        )
        return fitted.curve, fitted.best_epoch, {}
    learnt, choice = choice_images.hold_out(
        job.train, fraction=section.choice_fraction, seed=job.params.seed
    )
    done = fine_tuning.fine_tune(
        model,
        job.family.protected(model)[-1],
        groups=groups,
        data=training_data(job.params, train=learnt, validation=choice),
        plan=fine_tuning.FineTuningPlan(
            training=plan,
            linear_probe=section.linear_probe,
            learning_rate=section.learning_rate,
            flip_horizontal=section.augment.flip_horizontal,
        ),
        scratch=job.inputs.scratch,
        on_epoch=report,
        say=lambda text: job.recorder.note("decision", text),
    )
    return done.curve, done.best_epoch, _chosen(job, done)


def _chosen(job: FinetuneJob, done: FineTuned) -> dict[str, Any]:  # Any: JSON
    """Facts of what the choice images chose, and what later stages need of it."""
    values = {
        "finetune.learning_rate": done.learning_rate,
        "finetune.augment.flip_horizontal": done.flip_horizontal,
    }
    section = job.params.finetune
    asked = {
        "finetune.learning_rate": section.learning_rate,
        "finetune.augment.flip_horizontal": section.augment.flip_horizontal,
    }
    return {
        "fine_tuning": {
            "kept": done.kept,
            "choice_images": done.choice_images,
            "trained_accuracy": done.trained,
            "probe_accuracy": done.probe,
            "said": done.said,
        },
        DECIDED: {key: value for key, value in values.items() if asked[key] == "auto"},
    }


def training_plan(params: Params) -> TrainingPlan:
    """Training plan of the finetune section: the names are the same, and `auto` is not yet said."""
    from fettle.training import learning_rate_search
    from fettle.training.augmentation import Augmentation
    from fettle.training.training_plan import TrainingPlan

    apart = {"family", "options", "augment", "linear_probe", "choice_fraction"}
    section = params.finetune.model_dump(exclude=apart)
    augment = params.finetune.augment.model_dump()
    if section["learning_rate"] == "auto":
        section["learning_rate"] = learning_rate_search.RATES[0]
    if augment["flip_horizontal"] == "auto":
        augment["flip_horizontal"] = False
    section["freeze_batchnorm"] = section["freeze_batchnorm"] is True
    return TrainingPlan(seed=params.seed, augment=Augmentation(**augment), **section)


def _report(recorder: Recorder, epoch: Epoch, *, epochs_max: int, chosen: bool) -> None:
    """Tell the recorder of a finished epoch, which choice images or the validation split judged."""
    for name in ("train_loss", "validation_loss", "validation_accuracy", "learning_rate"):
        recorder.scalar(name, getattr(epoch, name), step=epoch.epoch)
    text = (
        f"epoch {epoch.epoch} of at most {epochs_max} ({epoch.phase}): "
        f"{'choice' if chosen else 'validation'} accuracy {epoch.validation_accuracy:.1%}"
    )
    recorder.progress(epoch.epoch / epochs_max, text)


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


def _architecture(options: dict[str, Any]) -> dict[str, Any]:  # Any: the family's own options
    return {key: value for key, value in options.items() if key not in WEIGHT_OPTIONS}
