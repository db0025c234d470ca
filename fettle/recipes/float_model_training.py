"""Float model training: what the section finetune asks for, on the images it is to be chosen by.

Without choice images the validation split says which epoch is the best, as it always did; with
them, a share of the training images chooses (fettle/training/fine_tuning.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pydantic import JsonValue

from fettle.data import choice_images
from fettle.data.split_reader import Images
from fettle.facts.finetune_facts import FineTuningFacts
from fettle.params import Params
from fettle.recipes.remaining_time import RemainingTime
from fettle.recipes.training_setup import training_data
from fettle.recorder import Recorder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fettle.training.fine_tuning import FineTuned
    from fettle.training.training_plan import Epoch, TrainingData, TrainingPlan


BATCH_IMAGES = 64  # of a pass without a gradient: BatchNorm needs tens of images a batch


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModelJob:
    """What a training reads: params in which the input is settled, the family, the images."""

    params: Params
    family: ModuleType
    train: Images
    validation: Images
    scratch: Path
    recorder: Recorder


@dataclass(frozen=True, slots=True)
class TrainedFloatModel:
    """The curve, its best epoch, what choice images chose, and {key of params: decided value}."""

    curve: list[Epoch]
    best_epoch: int
    chosen: FineTuningFacts | None = None
    decided: dict[str, JsonValue] = field(default_factory=dict)


def train(job: FloatModelJob, model: nn.Module, plan: TrainingPlan) -> TrainedFloatModel:
    """Train `model` in place; it holds the weights that were kept."""
    from fettle.training.training_loop import fit

    if job.params.finetune.choice_fraction:
        trained = _from_choice_images(job, model, plan)
    else:
        report = TrainingReport(job.recorder, plan, "validation")
        fitted = fit(
            model,
            data=training_data(job.params, train=job.train, validation=job.validation),
            plan=plan,
            groups=job.family.groups(model),
            scratch=job.scratch,
            on_epoch=report.epoch,
            on_step=report.step,
        )
        trained = TrainedFloatModel(fitted.curve, fitted.best_epoch)
    _adopt_data_statistics(job, model)
    return trained


def _adopt_data_statistics(job: FloatModelJob, model: nn.Module) -> None:
    """Let BatchNorm describe the training images, with the answers as they are: a cut measures
    them again.
    """
    from fettle.compress import batchnorm_statistics

    data = training_data(job.params, train=job.train, validation=job.validation)
    batchnorm_statistics.adopt_data_statistics(
        model, _batches(data), images_max=batchnorm_statistics.IMAGES_MAX
    )


def _from_choice_images(
    job: FloatModelJob, model: nn.Module, plan: TrainingPlan
) -> TrainedFloatModel:
    from fettle.training import fine_tuning

    section = job.params.finetune
    learnt, choice = choice_images.hold_out(
        job.train, fraction=section.choice_fraction, seed=job.params.seed
    )
    data = training_data(job.params, train=learnt, validation=choice)
    if section.linear_probe:
        _settle_fresh_batchnorm(model, data)
    report = TrainingReport(job.recorder, plan, "choice")
    done = fine_tuning.fine_tune(
        model,
        job.family.protected(model)[-1],
        groups=job.family.groups(model),
        data=data,
        plan=fine_tuning.FineTuningPlan(
            training=plan,
            linear_probe=section.linear_probe,
            learning_rate=section.learning_rate,
            flip_horizontal=section.augment.flip_horizontal,
        ),
        scratch=job.scratch,
        on_epoch=report.epoch,
        on_step=report.step,
        say=lambda text: job.recorder.note("decision", text),
    )
    return TrainedFloatModel(done.curve, done.best_epoch, _facts(done), _decided(job.params, done))


def _settle_fresh_batchnorm(model: nn.Module, data: TrainingData) -> None:
    """Give BatchNorm layers that never saw an image the statistics of the training images.

    A probe is fitted in eval mode: on the mean 0 and variance 1 that a new network is made with,
    the first step of training, and any cut, would change every feature that it was fitted on.
    """
    from fettle.compress import batchnorm_statistics
    from fettle.training import inference

    if not batchnorm_statistics.are_fresh(model):
        return
    batchnorm_statistics.reestimate(
        model.to(inference.device()), _batches(data), images_max=batchnorm_statistics.IMAGES_MAX
    )


def _batches(data: TrainingData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Training images as they are, normalised, with their labels, batch by batch."""
    import torch

    from fettle.training import inference

    device = inference.device()
    for start in range(0, len(data.train_labels), BATCH_IMAGES):
        rows = slice(start, start + BATCH_IMAGES)
        images = torch.from_numpy(data.normalise(data.train_pixels[rows]))
        yield images.to(device), torch.from_numpy(data.train_labels[rows])


def _facts(done: FineTuned) -> FineTuningFacts:
    return FineTuningFacts(
        kept=done.kept,
        choice_images=done.choice_images,
        trained_accuracy=done.trained,
        probe_accuracy=done.probe,
        said=tuple(done.said),
    )


def _decided(params: Params, done: FineTuned) -> dict[str, JsonValue]:
    """Return what was chosen of what is `auto`: later stages need it."""
    section, decided = params.finetune, dict[str, JsonValue]()
    if section.learning_rate == "auto":
        decided["finetune.learning_rate"] = done.learning_rate
    if section.augment.flip_horizontal == "auto":
        decided["finetune.augment.flip_horizontal"] = done.flip_horizontal
    return decided


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


class TrainingReport:
    """What tells the recorder of a training's epochs, which the images `judges` judged, and between
    them how long it still takes.
    """

    def __init__(self, recorder: Recorder, plan: TrainingPlan, judges: str) -> None:
        self._recorder, self._plan, self._judges = recorder, plan, judges
        self._time = RemainingTime()

    def epoch(self, epoch: Epoch) -> None:
        """Record a finished epoch."""
        for name in ("train_loss", "validation_loss", "validation_accuracy", "learning_rate"):
            self._recorder.scalar(name, getattr(epoch, name), step=epoch.epoch)
        text = (
            f"epoch {epoch.epoch} of at most {self._plan.epochs_max} ({epoch.phase}): "
            f"{self._judges} accuracy {epoch.validation_accuracy:.1%}{self._time.text()}"
        )
        self._recorder.progress(epoch.epoch / self._plan.epochs_max, text)

    def step(self, number: int, of: int) -> None:
        """Note a step; say how far the training is, at most every few seconds."""
        if self._time.step(number, of):
            epochs = self._plan.epochs_max
            text = f"epoch {(number - 1) * epochs // of + 1} of at most {epochs}"
            self._recorder.progress((number - 1) / of, f"{text}{self._time.text()}")
