"""Training set-up that finetune and recovery share: the number of threads, the data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.params import Params

if TYPE_CHECKING:
    from fettle.training.training_plan import TrainingData


def threads() -> int:
    """Threads to train with: the physical cores we may use, or fewer by OMP_NUM_THREADS."""
    cores = [psutil.cpu_count(logical=False) or 1]
    if hasattr(os, "sched_getaffinity"):
        cores.append(len(os.sched_getaffinity(0)))
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min([*cores, *([int(asked)] if asked.isdigit() else [])]))


def training_data(params: Params, *, train: Images, validation: Images) -> TrainingData:
    """Training data for fettle.training: both splits and the normalisation."""
    from fettle.training.training_plan import TrainingData

    preprocess = split_reader.preprocess(params)
    return TrainingData(
        train_pixels=train.pixels,
        train_labels=train.labels,
        validation_pixels=validation.pixels,
        validation_labels=validation.labels,
        normalise=preprocess.normalise,
        classes=len(train.classes),
        std=preprocess.mean_std,
    )
