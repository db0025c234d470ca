"""Training plan and data: the values the loop takes, and what it tells of an epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from fettle.lazy_array import RowArray
from fettle.training.augmentation import Augmentation
from fettle.training.inference import Ints, Normalise


class StopTraining(Exception):
    """Raised by a loss to end its training with the best epoch; passed on where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What is learnt from and what decides: pixels uint8 [N, C, S, S], labels int64 [N]."""

    train_pixels: RowArray[np.uint8]
    train_labels: Ints
    validation_pixels: RowArray[np.uint8]
    validation_labels: Ints
    normalise: Normalise
    classes: int = 0  # of the model; labels that are mixed are shares of so many
    std: float = 1.0  # of `normalise`: brightness steps are shares of full scale


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How to train; the names and meanings are those of params.yaml's finetune section.

    `epochs_before` are epochs that another training of the model took: seeds go on from there, so
    that it sees other images. After `views_epochs` the same images come again in the same batches,
    changed the same way; None never repeats them. `epoch_steps_max` cuts an epoch to that many
    batches, others each time. `patience_epochs` None trains to the end. The
    weights of the best epoch on validation are kept; `freeze_batchnorm` normalises by the running
    statistics as they came, in training too; with `weight_averaging` those are averages.
    """

    epochs_max: int
    learning_rate: float
    seed: int
    rate_key: str = "finetune.learning_rate"  # where params.yaml holds the rate, for the error
    batch_images: int = 64
    weight_decay: float = 1e-4
    epochs_before: int = 0
    views_epochs: int | None = None
    epoch_steps_max: int | None = None
    epochs_head: int = 0
    unfreeze_every_epochs: int = 0
    learning_rate_decay_per_group: float = 1.0
    warmup_epochs: float = 1.0
    patience_epochs: int | None = None
    label_smoothing: float = 0.0
    batchnorm_momentum: float | None = None
    weight_averaging: Literal["none", "ema"] = "none"
    freeze_batchnorm: bool = False
    imbalance: Literal["none", "weights", "sampler", "thresholds"] = "none"
    mixed_precision: Literal["auto", "off"] = "auto"
    augment: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One finished epoch, counted from 1; losses in nats, the rate is the head's at its end."""

    epoch: int
    phase: Literal["head", "unfreezing", "all"]
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float

    def to_dict(self) -> dict[str, str | int | float]:
        """Return the JSON form that curve.json holds."""
        return asdict(self)
