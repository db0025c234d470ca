"""Trial watch: the rungs of a training, and the clock inside it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fettle.recipes.search.trial import SearchTimeoutError
from fettle.recipes.trial_watch import HopelessTrialError, TrialWatch


def test_a_training_that_learns_nothing_ends_at_a_ninth_of_its_epochs() -> None:
    watch = TrialWatch(reference=0.84, chance=0.2)
    for number in range(1, 17):
        watch.epoch(number, of=150, accuracy=0.3)
    with pytest.raises(HopelessTrialError) as caught:
        watch.epoch(17, of=150, accuracy=0.3)
    assert watch.epochs == 17
    assert str(caught.value).startswith(
        "stopped at epoch 17 of 150: got 54.0 points below the float model on validation; "
        "at most 32.0 by then."
    )


def test_a_training_that_catches_up_is_let_go_on_and_a_noisy_epoch_does_not_end_it() -> None:
    watch = TrialWatch(reference=0.84, chance=0.2)
    for number in range(1, 151):
        watch.epoch(number, of=150, accuracy=0.1 if number == 50 else 0.84 * min(1, number / 20))
    assert watch.epochs == 150


def test_a_short_training_is_evidence_itself_and_runs_to_its_end() -> None:
    watch = TrialWatch(reference=0.9, chance=0.1)
    for number in (1, 2):
        watch.epoch(number, of=2, accuracy=0.1)
    assert watch.epochs == 2


def test_the_clock_is_asked_at_every_step() -> None:
    left = iter([False, False, True])
    steps = 0

    def loss(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return images.sum()

    timed = TrialWatch(lambda: next(left)).each_step(loss)
    for _ in range(2):
        timed(nn.Identity(), torch.zeros(1), torch.zeros(1))
    with pytest.raises(SearchTimeoutError):
        timed(nn.Identity(), torch.zeros(1), torch.zeros(1))
    assert steps == 2
