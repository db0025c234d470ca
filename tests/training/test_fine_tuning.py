from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fettle.errors import ModelError
from fettle.training import fine_tuning, inference, learning_rate_search, linear_probe
from fettle.training.augmentation import Augmentation
from fettle.training.fine_tuning import FineTuned, FineTuningPlan
from fettle.training.training_plan import Epoch, TrainingData, TrainingPlan

Make = Callable[[], nn.Sequential]
TRAINING = TrainingPlan(
    epochs_max=3, learning_rate=1e-2, seed=1, batch_images=32, weight_averaging="ema"
)
PLAN = FineTuningPlan(
    training=TRAINING, linear_probe=True, learning_rate=1e-2, flip_horizontal=False
)
BAD_RATE = 3.0  # it tears the features apart, and yet no loss is infinite


def tune(
    model: nn.Sequential, data: TrainingData, folder: Path, plan: FineTuningPlan = PLAN, **more: Any
) -> FineTuned:
    head = model[-1]
    return fine_tuning.fine_tune(
        model, head, groups=[[head], list(model[:-1])], data=data, plan=plan, scratch=folder, **more
    )


def accuracy(model: nn.Module, data: TrainingData) -> float:
    answers = inference.logits(model, data.validation_pixels, data.normalise)
    return inference.accuracy_of(answers, data.validation_labels)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_trained_network_is_kept_where_it_is_better(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    plan = replace(PLAN, training=replace(TRAINING, epochs_max=8))
    done = tune(model, data, tmp_path, plan)
    assert done.kept == "trained"
    assert done.probe is not None
    assert done.trained > done.probe
    assert accuracy(model, data) == done.trained
    assert done.said == [
        f"the trained network is kept: {done.trained:.1%} of 60 choice images after training, "
        f"{done.probe:.1%} by the linear probe"
    ]


def test_the_linear_probe_is_the_model_where_training_ends_below_it(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    model, untouched = make_model(), make_model()
    plan = replace(PLAN, learning_rate=BAD_RATE, training=replace(TRAINING, epochs_max=1))
    done = tune(model, data, tmp_path, plan)
    assert done.kept == "probe"
    assert done.probe is not None
    assert done.trained < done.probe
    assert done.said[-1] == (
        "the linear probe is the model, fine-tuning did not improve it: "
        f"{done.trained:.1%} of 60 choice images after training, {done.probe:.1%} by the linear "
        "probe"
    )
    body = {k: v for k, v in model.state_dict().items() if not k.startswith("3.")}
    assert all(torch.equal(v, untouched.state_dict()[k]) for k, v in body.items())


def test_that_probe_is_fitted_on_all_images_with_the_chosen_strength(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    model, fresh = make_model(), make_model()
    plan = replace(PLAN, learning_rate=BAD_RATE, training=replace(TRAINING, epochs_max=1))
    tune(model, data, tmp_path, plan)
    known = [
        linear_probe.features(fresh, fresh[-1], pixels, data.normalise)
        for pixels in (data.train_pixels, data.validation_pixels)
    ]
    labels = [data.train_labels, data.validation_labels]
    chosen = linear_probe.best(
        linear_probe.fit(known[0], labels[0], classes=3), known[1], labels[1]
    )
    expected = linear_probe.fit(
        np.concatenate(known), np.concatenate(labels), classes=3, strengths=[chosen.strength]
    )[0]
    torch.testing.assert_close(model[-1].weight.data, expected.weight)
    assert not torch.allclose(model[-1].weight.data, chosen.weight)


def test_training_starts_from_the_probe(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    """At a rate of next to nothing the first epoch is as good as the probe."""
    plan = replace(
        PLAN,
        learning_rate=1e-9,
        training=replace(TRAINING, epochs_max=1, freeze_batchnorm=True, weight_averaging="none"),
    )
    done = tune(make_model(), data, tmp_path, plan)
    assert done.probe is not None
    assert done.curve[0].validation_accuracy == done.probe
    without = tune(make_model(), data, tmp_path / "without", replace(plan, linear_probe=False))
    assert without.probe is None
    assert without.trained < done.probe


def test_the_rate_is_that_of_the_best_short_trial(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    done = tune(make_model(), data, tmp_path, replace(PLAN, learning_rate="auto"))
    kept = json.loads((tmp_path / fine_tuning.CHOICES).read_text())
    losses = dict(kept["trials"])
    assert sorted(losses) == sorted(learning_rate_search.RATES)
    near = [rate for rate, loss in losses.items() if loss <= 1.1 * min(losses.values())]
    assert done.learning_rate == max(near)
    assert done.said[0].startswith(
        f"learning rate {done.learning_rate:g}, by the loss on 60 choice images after short trials "
        "(0.0003: "
    )


def test_trials_leave_the_weights_as_they_were(make_model: Make) -> None:
    model = make_model()
    before = state(model)

    def train(rate: float) -> float:
        with torch.no_grad():
            for value in model.parameters():
                value += rate
        return {1e-3: 0.5, 3e-3: 0.4}.get(rate, 0.9)

    trials = learning_rate_search.search(model, train)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert learning_rate_search.best(trials) == 3e-3


def test_the_larger_of_two_rates_that_are_nearly_as_good_is_taken() -> None:
    """A short trial favours the smaller one."""
    losses = {3e-4: 0.768, 1e-3: 0.772, 2e-3: 0.851}
    trials = [learning_rate_search.RateTrial(rate, loss) for rate, loss in losses.items()]
    assert learning_rate_search.best(trials) == 1e-3


def test_a_rate_that_diverges_is_out_and_all_of_them_are_an_error(make_model: Make) -> None:
    def diverges(rate: float) -> float:
        if rate > 1e-3:
            raise ModelError("the loss is not a number", fix="none")
        return 1.0

    trials = learning_rate_search.search(make_model(), diverges)
    assert learning_rate_search.best(trials) == 1e-3
    with pytest.raises(ModelError) as caught:
        learning_rate_search.search(make_model(), diverges, rates=[0.1, 0.2])
    assert str(caught.value) == (
        "training broke down at every learning rate tried: got 0.1, 0.2; finetune.learning_rate: "
        "auto tries these. Fix: look at preprocess.mean and preprocess.std and at the model's own "
        "weights, or set finetune.learning_rate to a smaller number."
    )


def test_trials_are_a_bounded_share_of_the_training() -> None:
    assert learning_rate_search.trial_steps(600) == 50
    assert learning_rate_search.trial_steps(10) == learning_rate_search.STEPS_MIN
    assert learning_rate_search.trial_steps(10**6) == learning_rate_search.STEPS_MAX


@pytest.mark.parametrize("asked", [True, False])
def test_flips_that_a_person_asked_for_or_refused_are_not_tested(
    data: TrainingData, make_model: Make, tmp_path: Path, asked: bool
) -> None:
    done = tune(make_model(), data, tmp_path, replace(PLAN, flip_horizontal=asked))
    assert done.flip_horizontal is asked
    assert len(done.said) == 1


def test_bars_may_be_flipped_and_it_is_said(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    done = tune(make_model(), data, tmp_path, replace(PLAN, flip_horizontal="auto"))
    assert done.flip_horizontal
    assert done.said[0].startswith("images are flipped: mirrored ones are classified as well (")
    assert "of 180 mirrored, " in done.said[0]


def test_without_a_probe_nothing_is_flipped(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    plan = replace(PLAN, flip_horizontal="auto", linear_probe=False)
    done = tune(make_model(), data, tmp_path, plan)
    assert not done.flip_horizontal
    assert done.said == ["images are not flipped: only a linear probe can say if they may be"]


def test_a_head_that_cannot_hold_a_probe_is_trained_and_said(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    model[-1] = nn.Linear(16, 3, bias=False)
    done = tune(model, data, tmp_path)
    assert (done.kept, done.probe) == ("trained", None)
    assert done.said == ["no linear probe: the last layer is Linear, not a Linear with a bias"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 2])
def test_a_killed_tuning_ends_with_the_same_weights(
    data: TrainingData, make_model: Make, tmp_path: Path, at: int
) -> None:
    plan = FineTuningPlan(
        training=replace(TRAINING, augment=Augmentation(crop_scale_min=0.5)),
        linear_probe=True,
        learning_rate="auto",
        flip_horizontal="auto",
    )
    whole = make_model()
    done = tune(whole, data, tmp_path / "whole", plan)

    def kill(epoch: Epoch) -> None:
        if epoch.epoch == at:
            raise Killed

    with pytest.raises(Killed):
        tune(make_model(), data, tmp_path / "killed", plan, on_epoch=kill)
    resumed = make_model()
    again = tune(resumed, data, tmp_path / "killed", plan)
    assert again == done
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_the_choices_of_a_killed_run_are_read_and_not_made_again(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    (tmp_path / fine_tuning.CHOICES).write_text(
        json.dumps({"flip_horizontal": True, "why": "", "learning_rate": 0.123, "trials": []})
    )
    plan = replace(PLAN, learning_rate="auto", flip_horizontal="auto")
    done = tune(make_model(), data, tmp_path, plan)
    assert (done.learning_rate, done.flip_horizontal) == (0.123, True)


def test_frozen_batchnorm_keeps_the_statistics_and_learns_the_scales(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    model, before = make_model(), state(make_model())
    plan = replace(PLAN, training=replace(TRAINING, freeze_batchnorm=True))
    tune(model, data, tmp_path, plan)
    after = model.state_dict()
    for name in before:
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(after[name], before[name]), name
        elif name.endswith("1.weight"):
            assert not torch.equal(after[name], before[name]), name


def test_no_epochs_leave_it_at_a_probe_of_all_images(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    plan = replace(PLAN, learning_rate="auto", training=replace(TRAINING, epochs_max=0))
    done = tune(model, data, tmp_path, plan)
    assert (done.kept, done.curve, done.best_epoch) == ("probe", [], 0)
    assert done.said == [
        f"nothing is trained: the linear probe has {done.probe:.1%} of 60 choice images"
    ]
    assert list(tmp_path.iterdir()) == [], "no rate is tried"
    assert accuracy(model, data) > 0.5
    body = {k: v for k, v in model.state_dict().items() if not k.startswith("3.")}
    assert all(torch.equal(v, state(make_model())[k]) for k, v in body.items())


def test_no_epochs_of_a_model_without_a_probe_is_an_error(
    data: TrainingData, make_model: Make, tmp_path: Path
) -> None:
    model = make_model()
    model[-1] = nn.Linear(16, 3, bias=False)
    plan = replace(PLAN, training=replace(TRAINING, epochs_max=0))
    with pytest.raises(ModelError) as caught:
        tune(model, data, tmp_path, plan)
    assert str(caught.value) == (
        "finetune.epochs_max: 0 leaves it at the linear probe, and this model has none: got no "
        "linear probe: the last layer is Linear, not a Linear with a bias; a probe is folded into "
        "a last layer that is a Linear with a bias. Fix: give epochs, and do without a first "
        "release (`fettle run --first`)."
    )
