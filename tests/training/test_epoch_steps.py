"""An epoch that is cut to steps, and a training that its loss stops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fettle.training.training_loop import epoch_steps, fit
from fettle.training.training_plan import StopTraining, TrainingData, TrainingPlan

Make = Callable[[], nn.Sequential]


def test_an_epoch_is_cut_to_its_steps_and_each_sees_other_images(
    make_model: Make, data: TrainingData
) -> None:
    seen: list[bytes] = []

    def loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(inputs.numpy().tobytes())
        return F.cross_entropy(model(inputs), labels)

    plan = TrainingPlan(
        epochs_max=3, learning_rate=1e-3, seed=1, batch_images=32, epoch_steps_max=2
    )
    assert epoch_steps(data, plan) == 2
    fit(make_model(), data=data, plan=plan, loss=loss)
    assert len(seen) == 6
    assert len(set(seen)) == 6
    assert len(seen[0]) == 30 * 12 * 12 * 4  # of 180 images in 6 batches: no larger for the cut


def test_a_training_that_is_stopped_keeps_its_best_epoch(
    make_model: Make, data: TrainingData
) -> None:
    steps = 0

    def loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps > stop_after:
            raise StopTraining
        return F.cross_entropy(model(inputs), labels)

    plan = TrainingPlan(epochs_max=9, learning_rate=1e-3, seed=1, batch_images=60)
    stop_after = 7  # in the third epoch of three steps
    model = make_model()
    stopped = fit(model, data=data, plan=plan, loss=loss)
    assert stopped.stopped
    assert len(stopped.curve) == 2
    assert not model.training
    steps, stop_after = 0, 2
    with pytest.raises(StopTraining):
        fit(make_model(), data=data, plan=plan, loss=loss)
