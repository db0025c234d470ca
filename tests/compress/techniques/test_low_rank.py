from __future__ import annotations

import pytest
import torch
from tiny_nets import Fits, answer, build, compression_context, images
from torch import nn

from fettle.compress import layer_costs
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import SensitivityReport
from fettle.compress.techniques import low_rank


def whole(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y: torch.Tensor = layer(x)
    return y


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(12, 10), torch.randn(5, 12)),
        (nn.Conv2d(12, 10, 1, stride=2), torch.randn(5, 12, 8, 8)),
        (nn.Conv2d(12, 10, 3, padding=2, dilation=2, bias=False), torch.randn(5, 12, 8, 8)),
        (nn.Conv2d(12, 10, (1, 3), padding=(0, 1)), torch.randn(5, 12, 8, 8)),
    ],
)
def test_a_layer_of_low_rank_answers_alike_when_it_is_split(
    layer: nn.Module, x: torch.Tensor
) -> None:
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    left, right = torch.randn(10, 3), torch.randn(3, weight[0].numel())
    with torch.no_grad():
        weight.copy_((left @ right).reshape(weight.shape))
    made = low_rank.factorize_layer(layer, 3)
    torch.testing.assert_close(whole(made, x), whole(layer, x), atol=1e-4, rtol=1e-4)


def test_no_matrix_of_that_rank_is_closer() -> None:
    layer = nn.Linear(20, 12, bias=False)
    made = low_rank.factorize_layer(layer, 4)
    product = (made[1].weight @ made[0].weight).detach()  # type: ignore[operator] # two Linear
    left_over = torch.linalg.svdvals(layer.weight.detach())[4:].square().sum()
    assert float((product - layer.weight.detach()).square().sum()) == pytest.approx(
        float(left_over), rel=1e-4
    )


def test_every_layer_left_whole_is_named_with_the_reason() -> None:
    asked = low_rank.Params(rank_fraction=0.25, macs_saved_min=20_000)
    context = compression_context(protected={"classifier": "so"})
    outcome = low_rank.apply(build("mobile"), CompressionPlan(), asked, context)
    small = "a split saves 16,384 multiply-accumulates, an operator costs as much as 20,000"
    assert outcome.skipped == {
        "classifier": "so",
        "depthwise": "a convolution in groups has no rank to lower",
        "expand": small,
        "project": small,
        "stem": "through 8 channels its multiply-accumulates fall by 0.72x, less than 1.5x",
    }


def test_a_split_that_saves_less_than_an_operator_costs_is_left() -> None:
    asked = low_rank.Params(rank_fraction=0.25, macs_ratio_min=1.1)
    fit = Fits()
    outcome = low_rank.apply(
        build("mobile"), CompressionPlan(), asked, compression_context(fit=fit)
    )
    assert outcome.skipped["expand"] == (
        "a split saves 16,384 multiply-accumulates, an operator costs as much as 50,000"
    )
    assert outcome.notes == ("no layer is large enough to be split; see the reasons under skipped",)
    assert outcome.plan == CompressionPlan()
    assert fit.asked == []


def test_the_split_layers_are_named_and_training_follows() -> None:
    fit, model = Fits(), build("plain")
    outcome = low_rank.apply(
        model, CompressionPlan(), low_rank.Params(recover_epochs=2), compression_context(fit=fit)
    )
    assert list(outcome.plan.replaced) == ["block1.1.0", "block2.0.0", "block2.1.0"]
    assert outcome.notes == tuple(
        f"'{name}' goes through 8 channels" for name in outcome.plan.replaced
    )
    assert fit.asked == [("low-rank", 2)]
    assert answer(model, images()).shape == (12, 3)


def test_low_rank_is_proposed_only_of_a_model_with_a_large_layer() -> None:
    def survey(macs: int) -> SensitivityReport:
        return SensitivityReport(layers=(layer_costs.LayerCost("a", "Conv2d", 8, 100, macs),))

    assert low_rank.proposals(survey(99_999), multiple=8, seed=0) == []
    assert low_rank.proposals(survey(100_000), multiple=8, seed=0) == [
        {"rank_fraction": 0.5}, {"rank_fraction": 0.25}
    ]  # fmt: skip
