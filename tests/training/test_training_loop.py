from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fettle.errors import ModelError
from fettle.training import inference
from fettle.training.augmentation import Augmentation
from fettle.training.training_loop import fit, set_batchnorm_momentum
from fettle.training.training_plan import Epoch, TrainingData, TrainingPlan

Make = Callable[[], nn.Sequential]
PLAN = TrainingPlan(epochs_max=6, learning_rate=5e-3, seed=3, batch_images=32)
GRADUAL = replace(
    PLAN,
    epochs_head=1,
    unfreeze_every_epochs=1,
    learning_rate_decay_per_group=0.7,
    augment=Augmentation(shift_fraction=0.05, brightness_fraction=0.05),
)


def groups(model: nn.Sequential) -> list[list[nn.Module]]:
    return [[model[3]], [model[1]], [model[0]]]


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_training_learns(make_model: Make, data: TrainingData) -> None:
    model = make_model()
    fitted = fit(model, data=data, plan=PLAN)
    first, last = fitted.curve[0], fitted.curve[-1]
    assert last.train_loss < first.train_loss / 2
    assert max(one.validation_accuracy for one in fitted.curve) > 0.9
    assert [one.epoch for one in fitted.curve] == [1, 2, 3, 4, 5, 6]


def test_the_model_ends_with_the_weights_of_its_best_epoch(
    make_model: Make, data: TrainingData
) -> None:
    steps = 0

    def learn_then_spoil(
        model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        nonlocal steps
        steps += 1
        loss = F.cross_entropy(model(inputs), labels)
        return loss if steps <= 12 else -loss  # 6 steps an epoch: the third spoils

    model = make_model()
    fitted = fit(model, data=data, plan=replace(PLAN, learning_rate=2e-2), loss=learn_then_spoil)
    answers = inference.logits(model, data.validation_pixels, data.normalise)
    best = fitted.curve[fitted.best_epoch - 1]
    assert fitted.best_epoch <= 3
    assert best.validation_accuracy == max(one.validation_accuracy for one in fitted.curve)
    assert inference.loss_of(answers, data.validation_labels) == pytest.approx(best.validation_loss)
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(
    make_model: Make, data: TrainingData
) -> None:
    found = []
    for plan in (GRADUAL, GRADUAL, replace(GRADUAL, seed=4)):
        model = make_model()
        fit(model, data=data, plan=replace(plan, epochs_max=2), groups=groups(model))
        found.append(weights(model))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(
    make_model: Make, data: TrainingData, tmp_path: Path
) -> None:
    whole = make_model()
    unbroken = fit(whole, data=data, plan=GRADUAL, groups=groups(whole))

    class Killed(Exception):
        pass

    def kill(one: Epoch) -> None:
        if one.epoch == 2:
            raise Killed

    broken = make_model()
    with pytest.raises(Killed):
        fit(broken, data=data, plan=GRADUAL, groups=groups(broken), scratch=tmp_path, on_epoch=kill)
    told: list[int] = []
    fresh = make_model()
    resumed = fit(
        fresh,
        data=data,
        plan=GRADUAL,
        groups=groups(fresh),
        scratch=tmp_path,
        on_epoch=lambda one: told.append(one.epoch),
    )
    assert equal(weights(whole), weights(fresh))
    assert resumed == unbroken
    assert told == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_not_trained_again(
    make_model: Make, data: TrainingData, tmp_path: Path
) -> None:
    first, second = make_model(), make_model()
    fit(first, data=data, plan=PLAN, scratch=tmp_path)

    def never(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a step was taken")

    fit(second, data=data, plan=PLAN, scratch=tmp_path, loss=never)
    assert equal(weights(first), weights(second))


def test_a_checkpoint_cut_short_is_passed_over(
    make_model: Make, data: TrainingData, tmp_path: Path
) -> None:
    first, second = make_model(), make_model()
    fit(first, data=data, plan=PLAN, scratch=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    fit(second, data=data, plan=PLAN, scratch=tmp_path)
    assert equal(weights(first), weights(second))


def test_only_the_head_moves_in_the_head_phase(make_model: Make, data: TrainingData) -> None:
    model = make_model()
    before = weights(model)
    plan = replace(PLAN, epochs_head=1, epochs_max=1)
    fitted = fit(model, data=data, plan=plan, groups=groups(model))
    after = dict(model.named_parameters())
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"3.weight", "3.bias"}
    assert fitted.curve[0].phase == "head"
    assert not torch.equal(model[0][1].running_mean, before["0.1.running_mean"])


def test_groups_open_one_after_the_other(make_model: Make, data: TrainingData) -> None:
    learning: list[int] = []

    def watch(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert isinstance(model, nn.Sequential)
        open_ = [all(p.requires_grad for p in layer.parameters()) for layer in model[:2]]
        learning.append(sum(open_))
        return F.cross_entropy(model(inputs), labels)

    model = make_model()
    fitted = fit(model, data=data, plan=GRADUAL, groups=groups(model), loss=watch)
    phases = [one.phase for one in fitted.curve]
    assert phases == ["head", "unfreezing", "all", "all", "all", "all"]
    assert learning == [0] * 6 + [1] * 6 + [2] * 24
    assert all(p.requires_grad for p in model.parameters())


def test_the_rate_falls_over_the_whole_training(make_model: Make, data: TrainingData) -> None:
    fitted = fit(make_model(), data=data, plan=PLAN)
    rates = [one.learning_rate for one in fitted.curve]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9 * PLAN.learning_rate
    assert rates[-1] < 0.01 * PLAN.learning_rate


def test_patience_stops_a_run_that_no_longer_improves(make_model: Make, data: TrainingData) -> None:
    model = make_model()
    plan = replace(PLAN, epochs_max=50, learning_rate=1e-9, patience_epochs=2)
    fitted = fit(model, data=data, plan=plan)
    assert len(fitted.curve) - fitted.best_epoch == 2


def test_a_loss_of_ones_own_is_what_is_minimised(make_model: Make, data: TrainingData) -> None:
    teacher = make_model()
    fit(teacher, data=data, plan=PLAN)
    student = make_model()
    nn.init.normal_(student[3].weight)

    def distance(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher(inputs)
        return F.mse_loss(model(inputs), wanted)

    fitted = fit(student, data=data, plan=PLAN, loss=distance)
    assert fitted.curve[-1].train_loss < fitted.curve[0].train_loss / 3


def test_a_loss_that_is_no_number_says_where_and_what_to_do(
    make_model: Make, data: TrainingData
) -> None:
    model = make_model()

    def broken(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return model(inputs).sum() * float("nan")

    with pytest.raises(ModelError) as caught:
        fit(model, data=data, plan=PLAN, loss=broken)
    assert str(caught.value) == (
        "training broke down: the loss is not a number: got nan at epoch 1, step 1, learning rate "
        "0.000833; a loss must stay finite. Fix: divide finetune.learning_rate by ten; if it "
        "happens at step 1, look at preprocess.mean and preprocess.std and at the model's own "
        "weights."
    )


def test_a_learning_rate_far_too_high_breaks_down_with_that_error(data: TrainingData) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ModelError, match=r"got (nan|inf) at epoch \d+, (step|on validation)"):
        fit(model, data=data, plan=replace(PLAN, learning_rate=1e30))


def test_batchnorm_momentum_is_set_or_left_alone(make_model: Make) -> None:
    model = make_model()
    set_batchnorm_momentum(model, 0.3)
    assert [model[0][1].momentum, model[1][1].momentum] == [0.3, 0.3]
    set_batchnorm_momentum(model, None)
    assert [model[0][1].momentum, model[1][1].momentum] == [0.3, 0.3]


def test_an_epoch_smaller_than_a_batch_still_trains(make_model: Make, data: TrainingData) -> None:
    few = replace(data, train_pixels=data.train_pixels[:5], train_labels=data.train_labels[:5])
    model = make_model()
    before = weights(model)
    fit(model, data=few, plan=replace(PLAN, epochs_max=1))
    assert not equal(before, weights(model))


def test_no_batch_is_a_lone_image(make_model: Make, data: TrainingData) -> None:
    seen: list[int] = []

    def count(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(len(labels))
        return F.cross_entropy(model(inputs), labels)

    odd = replace(data, train_pixels=data.train_pixels[:65], train_labels=data.train_labels[:65])
    fit(make_model(), data=odd, plan=replace(PLAN, epochs_max=1), loss=count)
    assert seen == [33, 32]


def test_rare_classes_are_found_with_weights_and_with_the_sampler(
    make_model: Make, data: TrainingData
) -> None:
    rare = (data.train_labels != 2) | (np.cumsum(data.train_labels == 2) <= 3)
    skewed = replace(
        data, train_pixels=data.train_pixels[rare], train_labels=data.train_labels[rare]
    )
    recall = {}
    for way in ("none", "weights", "sampler"):
        model = make_model()
        fit(model, data=skewed, plan=replace(PLAN, imbalance=way, epochs_max=4))
        answers = inference.logits(model, data.validation_pixels, data.normalise)
        found = answers.argmax(axis=1)[data.validation_labels == 2] == 2
        recall[way] = float(found.mean())
    assert recall["weights"] > recall["none"]
    assert recall["sampler"] > recall["none"]


def test_predicting_leaves_the_mode_alone_and_ignores_the_batch_size(
    make_model: Make, data: TrainingData
) -> None:
    model = make_model().train()
    one = inference.logits(model, data.validation_pixels, data.normalise, batch_images=7)
    other = inference.logits(model, data.validation_pixels, data.normalise)
    assert model.training
    assert one.shape == (60, 3)
    np.testing.assert_allclose(one, other, atol=1e-5)


def _seen(make_model: Make, data: TrainingData, plan: TrainingPlan) -> list[bytes]:
    """Train; return what each epoch's batches held, in order."""
    batches: list[bytes] = []

    def loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        batches.append(inputs.contiguous().numpy().tobytes())
        return F.cross_entropy(model(inputs), labels)

    fit(make_model(), data=data, plan=plan, loss=loss)
    size = len(batches) // plan.epochs_max
    return [b"".join(batches[at : at + size]) for at in range(0, len(batches), size)]


@pytest.mark.parametrize(("views", "wanted"), [(None, 6), (4, 4), (1, 1)])
def test_after_so_many_epochs_the_same_batches_come_again(
    make_model: Make, data: TrainingData, views: int | None, wanted: int
) -> None:
    plan = replace(GRADUAL, views_epochs=views)
    seen = _seen(make_model, data, plan)
    assert len(set(seen)) == wanted
    assert views is None or seen[views:] == seen[: 6 - views]
    # a training that goes on after another enters the round where that one left it
    later = _seen(make_model, data, replace(plan, epochs_before=2))
    assert later[:2] == seen[2:4]
