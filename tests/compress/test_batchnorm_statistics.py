from __future__ import annotations

from collections.abc import Iterator

import torch
from tiny_nets import build, images
from torch import Tensor, nn

from fettle.compress import batchnorm_statistics


def batches(sizes: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    for seed, size in enumerate(sizes):
        yield images(size, seed=seed), torch.zeros(size, dtype=torch.int64)


def norm_of(model: nn.Module) -> nn.BatchNorm2d:
    norm = model.stem_norm
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def test_the_statistics_become_the_average_over_the_batches() -> None:
    model = build("mobile")
    assert batchnorm_statistics.reestimate(model, batches([8, 8]), images_max=100) == 16
    maps = [model.stem(images(8, seed=seed)) for seed in (0, 1)]  # type: ignore[operator] # a layer
    means = torch.stack([one.mean((0, 2, 3)) for one in maps]).mean(0)
    variances = torch.stack([one.var((0, 2, 3)) for one in maps]).mean(0)
    torch.testing.assert_close(norm_of(model).running_mean, means)
    torch.testing.assert_close(norm_of(model).running_var, variances)


def test_momentum_mode_and_weights_are_left_alone() -> None:
    model = build("mobile")
    norm_of(model).momentum = 0.03
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batchnorm_statistics.reestimate(model, batches([8]), images_max=100)
    assert norm_of(model).momentum == 0.03
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert not any(p.grad is not None for p in model.parameters())


def test_it_stops_after_enough_images() -> None:
    assert batchnorm_statistics.reestimate(build("mobile"), batches([8] * 10), images_max=20) == 24


def test_a_batch_of_one_image_is_passed_over() -> None:
    model = build("mobile")
    assert batchnorm_statistics.reestimate(model, batches([8, 1]), images_max=100) == 8


def test_without_images_the_statistics_stay() -> None:
    model = build("mobile")
    before = norm_of(model).running_mean
    assert before is not None
    kept = before.clone()
    assert batchnorm_statistics.reestimate(model, batches([1]), images_max=100) == 0
    assert torch.equal(kept, before)


def test_a_model_without_batchnorm_reads_nothing() -> None:
    assert batchnorm_statistics.reestimate(build("flat"), batches([8]), images_max=100) == 0


def test_statistics_are_fresh_until_an_image_was_seen() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    assert batchnorm_statistics.are_fresh(model)
    with torch.no_grad():
        model.train()(torch.rand(8, 1, 6, 6))
    assert not batchnorm_statistics.are_fresh(model)


def test_a_network_without_statistics_is_not_fresh() -> None:
    assert not batchnorm_statistics.are_fresh(nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)))


def foreign_statistics(model: nn.Module) -> None:
    """Give every BatchNorm the statistics of other data, as weights from elsewhere bring them."""
    draw = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=draw))
            module.running_var.copy_(torch.rand(module.num_features, generator=draw) * 4 + 0.1)


def answers(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(images(16, seed=9))  # type: ignore[no-any-return] # a module's call


def test_statistics_of_the_data_leave_the_answers_as_they_were() -> None:
    model = build("mobile")
    foreign_statistics(model)
    before = answers(model)
    seen = batchnorm_statistics.adopt_data_statistics(model, batches([8, 8]), images_max=100)
    assert seen == 16
    torch.testing.assert_close(answers(model), before, rtol=1e-3, atol=1e-4)


def test_after_them_measuring_again_changes_little() -> None:
    plain, adopted = build("mobile"), build("mobile")
    for model in (plain, adopted):
        foreign_statistics(model)
    before = answers(plain)
    batchnorm_statistics.adopt_data_statistics(adopted, batches([64, 64]), images_max=200)
    for model in (plain, adopted):
        batchnorm_statistics.reestimate(model, batches([64, 64]), images_max=200)
    moved = [float((answers(model) - before).abs().mean()) for model in (plain, adopted)]
    assert moved[1] < moved[0] / 20


def test_a_channel_that_never_varies_keeps_its_answers_too() -> None:
    model = build("mobile")
    foreign_statistics(model)
    with torch.no_grad():
        model.stem.weight[0] = 0  # type: ignore[index,union-attr] # a convolution
    before = answers(model)
    batchnorm_statistics.adopt_data_statistics(model, batches([8, 8]), images_max=100)
    torch.testing.assert_close(answers(model), before, rtol=1e-3, atol=1e-4)


def test_without_images_nothing_is_adopted() -> None:
    model = build("mobile")
    foreign_statistics(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert batchnorm_statistics.adopt_data_statistics(model, batches([]), images_max=100) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
