"""A problem that a tiny network learns in a second: bars that lie or stand, and crosses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from fettle.preprocessing import Preprocess
from fettle.training.training_plan import TrainingData

SIZE_PX, CLASSES = 12, 3
PREPROCESS = Preprocess(size_px=SIZE_PX, channels=1, mean=0.5, std=0.5)


def bars(
    count: int, seed: int, *, shares: tuple[float, ...] = (1, 1, 1)
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `count` noisy images uint8 [N, 1, S, S]; `shares` are the classes' relative sizes."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(CLASSES, size=count, p=np.asarray(shares) / sum(shares)).astype(np.int64)
    pixels = draw.integers(0, 90, size=(count, 1, SIZE_PX, SIZE_PX))
    for image, label in zip(pixels, labels, strict=True):
        row, column = draw.integers(2, SIZE_PX - 2, size=2)
        if label in (0, 2):
            image[0, row, :] += 150
        if label in (1, 2):
            image[0, :, column] += 150
    return pixels.clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def data() -> TrainingData:
    train, validation = bars(180, 1), bars(60, 2)
    return TrainingData(
        train_pixels=train[0],
        train_labels=train[1],
        validation_pixels=validation[0],
        validation_labels=validation[1],
        normalise=PREPROCESS.normalise,
        std=PREPROCESS.std,
    )


@pytest.fixture
def make_model() -> Callable[[], nn.Sequential]:
    """Make the same untrained network each time it is called; it has BatchNorm and dropout."""

    def make() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.1)),
            nn.Linear(16, CLASSES),
        )

    return make
