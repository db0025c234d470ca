from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from tiny_nets import Fits, answer, build, compression_context, images
from torch import Tensor, nn
from torch.nn import functional as F

from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.techniques import qat


def task(count: int = 256) -> tuple[Tensor, Tensor]:
    """Images whose class is the quarter with the brightest patch, faint enough to be hard."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    y = torch.arange(count) % 3
    for index, label in enumerate(y.tolist()):
        x[index, 0, 2 * label : 2 * label + 3, 1:7] += 0.8
    return x, y


def train(model: nn.Module, steps: int, rate: float) -> None:
    x, y = task()
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call] # torch
        optimizer.step()
    model.eval()


class Trains:
    def __call__(self, model: nn.Module, *, epochs: int, learning_rate: float, **_: object) -> None:
        train(model, 10 * epochs, learning_rate)


def in_int8(model: nn.Module, calibration: Tensor) -> nn.Module:
    """Round weights and inputs as export does: ranges of the calibration images, nothing learnt."""
    made = copy.deepcopy(model)
    for layer in qat._layers(made):
        layer.weight.data = qat.rounded_weight(layer.weight.data)
        seen: list[tuple[Tensor, Tensor]] = []
        hook = layer.register_forward_pre_hook(
            lambda _l, i, seen=seen: seen.append((i[0].amin().clamp(max=0), i[0].amax()))
        )
        answer(made, calibration)
        hook.remove()
        layer.register_forward_pre_hook(
            lambda _l, i, seen=seen: (qat.rounded_input(i[0], *seen[0]), *i[1:])
        )
    return made


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order: by two threads the two trainings below come out a hair the other way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_int8_answers_stay_closer_after_training_under_rounding() -> None:
    model = build("plain")
    train(model, 30, 0.01)
    for layer in (model.get_submodule("block1.1.0"), model.get_submodule("block2.0.0")):
        with torch.no_grad():  # one weight a channel far from the rest: coarse steps for these
            layer.weight[:, 0, 0, 0] *= 40  # type: ignore[operator, index] # a Conv2d
    train(model, 5, 0.001)
    x, y = task()
    trained = copy.deepcopy(model)
    qat.apply(trained, CompressionPlan(), qat.Params(epochs=2), compression_context(fit=Trains()))  # type: ignore[arg-type] # a Fit with fewer names
    plain = copy.deepcopy(model)
    train(plain, 20, 5e-4)  # the same training without the rounding
    with torch.no_grad():
        moved = [float(((in_int8(one, x)(x) - one(x)) ** 2).mean()) for one in (trained, plain)]
        before, after, without = (
            float(F.cross_entropy(in_int8(one, x)(x), y)) for one in (model, trained, plain)
        )
        correct = [
            float((in_int8(one, x)(x).argmax(1) == y).float().mean()) for one in (trained, plain)
        ]
    assert moved[0] < moved[1] / 4
    assert after < before / 2
    assert after < without
    assert correct[0] >= correct[1]


def test_what_comes_out_is_an_ordinary_model_with_weights_on_the_int8_grid() -> None:
    model = build("mobile")
    names = set(model.state_dict())
    qat.apply(model, CompressionPlan(), qat.Params(epochs=1), compression_context(fit=Trains()))  # type: ignore[arg-type] # as above
    assert set(model.state_dict()) == names
    assert {type(layer) for layer in qat._layers(model)} == {nn.Conv2d, nn.Linear}
    assert not any(module._forward_pre_hooks for module in model.modules())
    for layer in qat._layers(model):
        assert isinstance(layer.weight, nn.Parameter)
        torch.testing.assert_close(qat.rounded_weight(layer.weight), layer.weight)
        steps = layer.weight.detach().flatten(1)
        for row in steps:
            scale = row.abs().max() / 127
            torch.testing.assert_close(row / scale, (row / scale).round(), atol=1e-3, rtol=0)


def test_the_ranges_travel_with_the_state_so_that_a_kill_loses_none() -> None:
    class Looks(Fits):
        def __call__(self, model: nn.Module, **settings: object) -> None:
            super().__call__(model, **settings)  # type: ignore[arg-type] # passed on
            answer(model.train(), images())
            self.keys = set(model.state_dict())

    fit = Looks()
    qat.apply(build("plain"), CompressionPlan(), qat.Params(), compression_context(fit=fit))
    assert {"classifier.qat_low", "classifier.qat_high"} <= fit.keys


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (-2.0, 0.0)])
def test_an_input_is_rounded_to_256_steps_and_zero_stays_zero(low: float, high: float) -> None:
    x = torch.linspace(low - 1, high + 1, 5001)
    rounded = qat.rounded_input(x, torch.tensor(low), torch.tensor(high))
    assert len(rounded.unique()) <= 256
    step = (high - low) / 255
    inside = (x >= low + step) & (x <= high - step)
    assert float((rounded - x)[inside].abs().max()) <= step / 2 + 1e-5
    zero = qat.rounded_input(torch.zeros(1), torch.tensor(low), torch.tensor(high))
    assert float(zero) == 0.0
