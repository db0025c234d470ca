from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fettle.errors import ModelError
from fettle.training import (
    augmentation,
    class_balance,
    learning_rate_schedule,
    optimizers,
    training_checkpoint,
)
from fettle.training.augmentation import Augmentation


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# schedule


def test_the_head_learns_alone_then_one_more_group_at_a_time() -> None:
    counts = [
        learning_rate_schedule.open_groups(e, groups=4, epochs_head=2, unfreeze_every_epochs=2)
        for e in range(10)
    ]
    assert counts == [1, 1, 2, 2, 3, 3, 4, 4, 4, 4]


def test_without_steps_everything_opens_after_the_head() -> None:
    counts = [
        learning_rate_schedule.open_groups(e, groups=4, epochs_head=1, unfreeze_every_epochs=0)
        for e in range(3)
    ]
    assert counts == [1, 4, 4]


@pytest.mark.parametrize("every", [0, 1, 3])
@pytest.mark.parametrize("head", [0, 1, 2])
def test_a_group_opens_in_the_epoch_that_counts_it_first(head: int, every: int) -> None:
    for group in range(4):
        opened = learning_rate_schedule.opening_epoch(
            group, epochs_head=head, unfreeze_every_epochs=every
        )
        kwargs = {"groups": 4, "epochs_head": head, "unfreeze_every_epochs": every}
        assert learning_rate_schedule.open_groups(opened, **kwargs) > group
        if group > 0 and opened > 0 and (head or every):
            assert learning_rate_schedule.open_groups(opened - 1, **kwargs) <= group


def test_the_rate_warms_up_from_the_opening_then_falls_along_a_cosine() -> None:
    def at(step: int) -> float:
        return learning_rate_schedule.rate_factor(step, steps=100, opened_at=10, warmup_steps=5)

    assert at(9) == 0.0
    assert at(10) == pytest.approx(0.2 * 0.5 * (1 + math.cos(0.1 * math.pi)))
    assert at(50) == pytest.approx(0.5)
    assert 0 < at(99) < 0.001


# optim


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_groups_nearer_the_input_learn_slower_and_scales_do_not_decay() -> None:
    model = two_layers()
    optimizer = optimizers.build(
        [[model[3]], [model[1], model[0]]],
        learning_rate=0.1,
        decay_per_group=0.5,
        weight_decay=0.01,
    )
    found = {
        id(p): (part["base_rate"], part["weight_decay"])
        for part in optimizer.param_groups
        for p in part["params"]
    }
    assert found == {
        id(model[3].weight): (0.1, 0.01),
        id(model[3].bias): (0.1, 0.0),
        id(model[0].weight): (0.05, 0.01),
        id(model[0].bias): (0.05, 0.0),
        id(model[1].weight): (0.05, 0.0),
        id(model[1].bias): (0.05, 0.0),
    }


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(3, 1, 3, 3) * torch.arange(1, 4).view(3, 1, 1, 1)).square().sum().backward()
    optimizer.step()


def test_an_optimizer_goes_on_from_its_stored_tensors() -> None:
    kwargs = {"learning_rate": 0.01, "decay_per_group": 1.0, "weight_decay": 0.0}
    one, other = two_layers(), two_layers()
    first = optimizers.build([[one]], **kwargs)
    step(one, first)
    second = optimizers.build([[other]], **kwargs)
    other.load_state_dict(one.state_dict())
    stored = {name: tensor.clone() for name, tensor in optimizers.state_tensors(first).items()}
    optimizers.load_state(second, stored)
    step(one, first)
    step(other, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# checkpoint


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    parts = {"model": {"a.b": torch.arange(4.0)}, "best": {"a.b": torch.zeros(2, 2)}}
    training_checkpoint.save(tmp_path, parts, {"epoch": 3, "rate": 0.5})
    found = training_checkpoint.load(tmp_path)
    assert found is not None
    assert found[1] == {"epoch": 3, "rate": 0.5}
    assert torch.equal(found[0]["model"]["a.b"], torch.arange(4.0))
    assert torch.equal(found[0]["best"]["a.b"], torch.zeros(2, 2))
    assert [p.name for p in tmp_path.iterdir()] == [training_checkpoint.NAME]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert training_checkpoint.load(tmp_path / "absent") is None


def test_a_failed_write_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    training_checkpoint.save(tmp_path, {"model": {"a": torch.ones(1)}}, {"epoch": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        training_checkpoint.save(
            tmp_path, {"model": {"a": torch.zeros(1)}}, {"epoch": float("nan")}
        )
    found = training_checkpoint.load(tmp_path)
    assert found is not None
    assert found[1] == {"epoch": 1}
    assert len(list(tmp_path.iterdir())) == 1


# augment


IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(9))


def test_no_augmentation_changes_nothing() -> None:
    assert augmentation.apply(IMAGES, Augmentation(), std=0.5, generator=generator()) is IMAGES


@pytest.mark.parametrize(
    "one",
    [
        Augmentation(shift_fraction=0.1),
        Augmentation(rotate_degrees=20),
        Augmentation(scale_fraction=0.2),
        Augmentation(brightness_fraction=0.2),
        Augmentation(contrast_fraction=0.2),
        Augmentation(flip_horizontal=True),
        Augmentation(erase_fraction=0.1),
    ],
    ids=lambda a: next(k for k in Augmentation.__slots__ if getattr(a, k)),
)
def test_each_change_keeps_the_shape_is_seeded_and_changes_something(one: Augmentation) -> None:
    found = augmentation.apply(IMAGES, one, std=0.5, generator=generator())
    again = augmentation.apply(IMAGES, one, std=0.5, generator=generator())
    other = augmentation.apply(IMAGES, one, std=0.5, generator=generator(6))
    assert found.shape == IMAGES.shape
    assert torch.equal(found, again)
    assert not torch.equal(found, IMAGES)
    assert not torch.equal(found, other)


def test_a_flip_mirrors_about_half_of_the_images_exactly() -> None:
    found = augmentation.apply(
        IMAGES, Augmentation(flip_horizontal=True), std=0.5, generator=generator()
    )
    mirrored = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(found, IMAGES, strict=True)]
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(found, IMAGES, strict=True)]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 0 < sum(mirrored) < 6


def test_a_shift_stays_within_its_share_of_the_side() -> None:
    dot = torch.zeros(200, 1, 20, 20)
    dot[:, :, 10, 10] = 1.0
    found = augmentation.apply(
        dot, Augmentation(shift_fraction=0.1), std=1.0, generator=generator()
    )
    where = found.flatten(1).argmax(dim=1)
    far = torch.stack([where // 20 - 10, where % 20 - 10]).abs().max()
    assert 1 <= far <= 3  # 2 px, and half a pixel of rounding


def test_a_quarter_turn_at_most_keeps_the_centre() -> None:
    cross = torch.zeros(50, 1, 21, 21)
    cross[:, :, 10, :] = 1.0
    found = augmentation.apply(
        cross, Augmentation(rotate_degrees=90), std=1.0, generator=generator()
    )
    assert found[:, 0, 10, 10].min() > 0.9


def test_brightness_is_a_share_of_full_scale_in_normalised_units() -> None:
    flat = torch.zeros(500, 1, 4, 4)
    found = augmentation.apply(
        flat, Augmentation(brightness_fraction=0.2), std=0.5, generator=generator()
    )
    levels = found[:, 0, 0, 0]
    assert 0.35 < levels.max() <= 0.4
    assert -0.4 <= levels.min() < -0.35


def test_erasing_covers_the_stated_area_with_the_mean() -> None:
    found = augmentation.apply(
        IMAGES, Augmentation(erase_fraction=0.25), std=0.5, generator=generator()
    )
    for before, after in zip(IMAGES, found, strict=True):
        hole = (after != before).any(dim=0)
        assert 49 <= hole.sum() <= 64  # a square of 8 px, or 7 when it falls between pixels
        assert after[:, hole].unique().numel() == 1
        assert after[:, hole][0, 0] == pytest.approx(float(before.mean()), abs=1e-5)


# balance


def test_class_weights_are_inverse_shares_with_mean_one_over_images() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3] * 3)
    weights = class_balance.class_weights(labels, 4)
    np.testing.assert_allclose(weights, [12 / 18, 12 / 9, 0, 12 / 9], rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1)


def test_the_sampler_draws_every_class_equally_often() -> None:
    labels = np.array([0] * 900 + [1] * 90 + [2] * 10)
    drawn = labels[class_balance.balanced_order(labels, 3, generator())]
    shares = np.bincount(drawn) / len(drawn)
    assert len(drawn) == 1000
    np.testing.assert_allclose(shares, 1 / 3, atol=0.06)


def test_offsets_raise_the_mean_recall_of_a_model_that_favours_the_common_class() -> None:
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1], [200, 40])
    logits = draw.normal(size=(240, 2)).astype(np.float32) * 0.8
    logits[np.arange(240), labels] += 1.0
    logits[:, 0] += 2.0
    train_labels = np.repeat([0, 1], [1000, 100])
    amounts = class_balance.offsets(logits, labels, train_labels)

    def mean_recall(some: np.ndarray) -> float:
        guess = some.argmax(axis=1)
        return float(np.mean([(guess[labels == k] == k).mean() for k in (0, 1)]))

    assert amounts[1] > amounts[0]
    assert mean_recall(logits + amounts) > mean_recall(logits) + 0.1


def test_offsets_are_zero_where_nothing_is_to_gain() -> None:
    labels = np.repeat([0, 1], [50, 5])
    logits = np.eye(2, dtype=np.float32)[labels] * 9
    np.testing.assert_array_equal(class_balance.offsets(logits, labels, labels), [0, 0])


def test_folded_offsets_shift_the_logits() -> None:
    head = nn.Linear(3, 2)
    x = torch.ones(1, 3)
    before = head(x).detach()
    class_balance.fold_offsets(head, np.array([0.5, -0.5], dtype=np.float32))
    torch.testing.assert_close(head(x).detach() - before, torch.tensor([[0.5, -0.5]]))


def test_offsets_need_a_bias_to_be_folded_into() -> None:
    with pytest.raises(ModelError) as caught:
        class_balance.fold_offsets(nn.Linear(3, 2, bias=False), np.zeros(2, dtype=np.float32))
    assert str(caught.value) == (
        "finetune.imbalance: thresholds needs a head with one bias a class: got "
        "Linear(in_features=3, out_features=2, bias=False); the offsets are folded into that bias. "
        "Fix: give the last layer a bias, or set finetune.imbalance to weights or sampler."
    )
