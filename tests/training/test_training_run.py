from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from fettle.training import optimizers
from fettle.training.training_plan import Epoch, TrainingPlan
from fettle.training.training_run import TrainingRun

PLAN = TrainingPlan(epochs_max=9, learning_rate=0.1, seed=0, patience_epochs=2)


def run(scratch: Path | None = None) -> TrainingRun:
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    optimizer = optimizers.build(
        [[model]], learning_rate=0.1, decay_per_group=1.0, weight_decay=0.0
    )
    return TrainingRun(model, optimizer, scratch)


def finish(
    one: TrainingRun,
    accuracy: float,
    *,
    phase: Literal["head", "unfreezing", "all"] = "all",
    loss: float = 1.0,
) -> None:
    """Finish an epoch in which every weight became `accuracy`."""
    for parameter in one.model.parameters():
        nn.init.constant_(parameter, accuracy)
    one.finish(
        Epoch(
            epoch=len(one.curve) + 1,
            phase=phase,
            train_loss=1.0,
            validation_loss=loss,
            validation_accuracy=accuracy,
            learning_rate=0.1,
        )
    )


def test_the_best_weights_outlive_worse_epochs_and_a_kill(tmp_path: Path) -> None:
    first = run(tmp_path)
    finish(first, 0.9)
    finish(first, 0.5)
    second = run(tmp_path)
    told: list[Epoch] = []
    second.resume(told.append)
    assert second.best_epoch == 1
    assert second.best["bias"].tolist() == pytest.approx([0.9, 0.9])
    assert second.model.bias.tolist() == [0.5, 0.5]
    assert told == first.curve


def test_of_equal_accuracies_the_lower_loss_is_best() -> None:
    one = run()
    for loss in (0.5, 0.3, 0.4):
        finish(one, 0.9, loss=loss)
    assert one.best_epoch == 2


def test_a_run_is_done_at_its_last_epoch() -> None:
    one = run()
    for at in range(9):
        assert not one.done(PLAN)
        finish(one, 0.1 * at)
    assert one.done(PLAN)


def test_patience_counts_epochs_without_a_better_one() -> None:
    one = run()
    for accuracy, done in ((0.5, False), (0.7, False), (0.6, False), (0.6, True)):
        finish(one, accuracy)
        assert one.done(PLAN) is done


def test_patience_counts_from_when_everything_learns() -> None:
    one = run()
    for phase in ("head", "head", "unfreezing", "unfreezing"):
        finish(one, 0.9 if not one.curve else 0.1, phase=phase)
        assert not one.done(PLAN)
    finish(one, 0.1)
    assert not one.done(PLAN)
    finish(one, 0.1)
    assert one.done(PLAN)


def test_without_patience_a_run_goes_to_its_end() -> None:
    one = run()
    patient = TrainingPlan(epochs_max=9, learning_rate=0.1, seed=0)
    for _ in range(8):
        finish(one, 0.5, loss=float(len(one.curve)))
        assert not one.done(patient)
