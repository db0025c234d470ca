from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fettle.training import inference
from fettle.training.training_loop import fit
from fettle.training.training_plan import Epoch, TrainingData, TrainingPlan
from fettle.training.weight_averaging import WeightAverage

PLAN = TrainingPlan(
    epochs_max=3, learning_rate=1e-2, seed=1, batch_images=32, weight_averaging="ema"
)


def test_the_average_of_constant_weights_is_the_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, steps=50)
    for _ in range(20):
        average.update(model)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(average.tensors[name], value)


def test_the_average_forgets_its_start_and_lags_behind_the_last_step() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightAverage(model, steps=1000)
    seen = []
    for step in range(1000):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(model)
        seen.append(float(average.tensors["weight"]))
    assert seen == sorted(seen)
    assert 999 - 1.2 * 120 < seen[-1] < 999 - 0.8 * 120, "it spans 12 % of the steps"


def test_counters_are_taken_over_not_averaged() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, steps=10)
    model(torch.randn(4, 2))
    average.update(model)
    assert int(average.tensors["num_batches_tracked"]) == 1


def test_the_average_is_what_an_epoch_is_judged_by_and_what_is_kept(
    data: TrainingData, make_model: Callable[[], nn.Sequential]
) -> None:
    model, plain = make_model(), make_model()
    fitted = fit(model, data=data, plan=PLAN)
    fit(plain, data=data, plan=replace(PLAN, weight_averaging="none"))
    answers = inference.logits(model, data.validation_pixels, data.normalise)
    best = fitted.curve[fitted.best_epoch - 1]
    assert inference.accuracy_of(answers, data.validation_labels) == best.validation_accuracy
    assert not torch.equal(model[3].weight, plain[3].weight)


class Killed(Exception):
    pass


def test_a_killed_training_goes_on_with_its_average(
    data: TrainingData, make_model: Callable[[], nn.Sequential], tmp_path: Path
) -> None:
    whole = make_model()
    fit(whole, data=data, plan=PLAN)

    def kill(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        fit(make_model(), data=data, plan=PLAN, scratch=tmp_path, on_epoch=kill)
    resumed = make_model()
    fit(resumed, data=data, plan=PLAN, scratch=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
