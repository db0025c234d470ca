from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tiny_nets import SIDE, Fits, answer, build, compression_context, images
from torch import nn

from fettle.compress import compression_plan, convolution_merging, removable_blocks
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import Block, SensitivityReport
from fettle.compress.techniques import depth
from fettle.errors import ModelError
from fettle.models.families import efficientnet_lite, resnet
from fettle.models.torch_blocks import Residual, conv_norm


def chain(*, blocks: int = 3, seed: int = 0) -> nn.Module:
    """Make a stem, residual blocks and a classifier; the second block does nothing."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        conv_norm(1, 16, kernel=3, activation=nn.ReLU()),
        nn.Sequential(*(Residual(conv_norm(16, 16, kernel=3)) for _ in range(blocks))),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    idle = model.get_submodule("1.1.body.1")
    nn.init.zeros_(idle.weight)  # type: ignore[arg-type] # a BatchNorm
    return model.eval()


def test_the_blocks_of_efficientnet_are_its_residuals_and_the_depthwise_parts_of_the_others() -> (
    None
):
    options = efficientnet_lite.Params(pretrained=False)
    model = efficientnet_lite.build(options, classes=3, channels=1, size_px=32, project=Path())
    found = removable_blocks.find_blocks(model, torch.zeros(1, 1, 32, 32), {})
    residuals = [name for name, module in model.named_modules() if isinstance(module, Residual)]
    assert [name for name in found if not name.endswith("depthwise")] == residuals
    assert len(residuals) == 9
    assert [name for name in found if name.endswith("depthwise")] == [
        "stage1.0.depthwise", "stage5.0.depthwise", "stage7.0.depthwise"
    ]  # fmt: skip


def test_a_stage_of_blocks_is_no_block_and_one_that_changes_its_width_is_none_either() -> None:
    model = resnet.build(resnet.Params(depth=20), classes=3, channels=1, size_px=32, project=Path())
    found = removable_blocks.find_blocks(model, torch.zeros(1, 1, 32, 32), {})
    assert [name for name in found if name.startswith("stage1")] == [
        "stage1.0", "stage1.1", "stage1.2"
    ]  # fmt: skip
    assert "stage2.1" in found
    assert not any(name.startswith("stage2.0.shortcut") or name == "stage2.0" for name in found)


def test_a_block_that_holds_a_protected_layer_stays() -> None:
    assert removable_blocks.find_blocks(chain(), images(1), {}) == ["1.0", "1.1", "1.2"]
    assert removable_blocks.find_blocks(chain(), images(1), {"1.2.body.0": "so"}) == ["1.0", "1.1"]


def test_a_block_that_runs_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Residual(conv_norm(1, 1, kernel=3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.block(self.block(x))
            return y

    assert removable_blocks.find_blocks(Twice(), images(1), {}) == []


def test_the_block_that_does_nothing_goes_first() -> None:
    model, x = chain(), images(32)
    with torch.no_grad():
        nn.init.normal_(model.get_submodule("4").weight, std=5)  # type: ignore[arg-type] # a Linear
        # What it answers with the batch's own statistics: any change makes the loss rise.
        own = copy.deepcopy(model).train()(x).argmax(1)
    asked = depth.Params(recover_epochs=0)
    outcome = depth.apply(
        model, CompressionPlan(), asked, compression_context(batches=lambda: [(x, own)])
    )
    assert outcome.notes == ("took out 1.1",)
    assert isinstance(model.get_submodule("1.1"), nn.Identity)
    assert list(outcome.plan.replaced) == ["1.1"]


def test_taking_out_a_block_is_bypassing_it() -> None:
    model, before = chain(), chain()
    hook = before.get_submodule("1.0").register_forward_hook(lambda _m, inputs, _o: inputs[0])
    removable_blocks.remove_blocks(model, CompressionPlan(), ["1.0"])
    assert torch.equal(answer(model, images()), answer(before, images()))
    hook.remove()


def test_named_blocks_go_whatever_their_loss_and_training_follows() -> None:
    fit = Fits()
    asked = depth.Params(blocks=["1.2", "1.0"], recover_epochs=3)
    outcome = depth.apply(chain(), CompressionPlan(), asked, compression_context(fit=fit))
    assert sorted(outcome.plan.replaced) == ["1.0", "1.2"]
    assert fit.asked == [("depth", 3)]


def test_a_block_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelError) as caught:
        depth.apply(chain(), CompressionPlan(), depth.Params(blocks=["1.7"]), compression_context())
    assert str(caught.value) == (
        "depth.blocks: no such removable block: got '1.7'; a block keeps the shape of its input, "
        "runs once and is not protected; here: 1.0, 1.1, 1.2. Fix: name some of these in "
        "compress.recipe, or give `remove: N` instead."
    )


def test_a_model_without_blocks_is_left_alone_and_not_trained() -> None:
    fit, model = Fits(), build("flat")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outcome = depth.apply(model, CompressionPlan(), depth.Params(), compression_context(fit=fit))
    assert outcome.notes == ("no block could be taken out",)
    assert fit.asked == []
    assert outcome.plan == CompressionPlan()
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)


def test_more_blocks_asked_than_there_are_takes_them_all() -> None:
    outcome = depth.apply(
        chain(), CompressionPlan(), depth.Params(remove=9, recover_epochs=0), compression_context()
    )
    assert sorted(outcome.plan.replaced) == ["1.0", "1.1", "1.2"]


@pytest.mark.parametrize(
    ("blocks", "counts"), [(0, []), (1, [1]), (2, [1, 2]), (12, [1, 2, 4, 8, 12])]
)
def test_proposals_double_until_no_block_is_left_least_missed_first(
    blocks: int, counts: list[int]
) -> None:
    found = tuple(
        Block(name=f"b{at}", layers=(), params=1, macs=1, loss_increase=-float(at))
        for at in range(blocks)
    )
    proposed = depth.proposals(SensitivityReport(layers=(), blocks=found), multiple=8, seed=0)
    ranked = [f"b{at}" for at in reversed(range(blocks))]
    assert proposed == [{"blocks": ranked[:count]} for count in counts]


class TestMerging:
    def run(self, *between: nn.Module, kernel: int = 3, second: int = 1) -> nn.Sequential:
        torch.manual_seed(0)
        padding = second // 2
        model = nn.Sequential(
            nn.Conv2d(1, 6, kernel, padding=kernel // 2, stride=2),
            *between,
            nn.Conv2d(6, 8, second, padding=padding, bias=False),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 16, 3),
        )
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        return model.eval()

    @pytest.mark.parametrize(
        "between", [(), (nn.BatchNorm2d(6),), (nn.Identity(), nn.BatchNorm2d(6))]
    )
    @pytest.mark.parametrize("kernel", [1, 3])
    def test_the_merged_model_answers_alike_with_one_convolution_less(
        self, between: tuple[nn.Module, ...], kernel: int
    ) -> None:
        model = self.run(*between, kernel=kernel)
        before = answer(model, images())
        plan, said = convolution_merging.merge(model, CompressionPlan(), images(1))
        assert said == [f"merged '0' into '{len(between) + 1}'"]
        assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 1
        torch.testing.assert_close(answer(model, images()), before, atol=1e-5, rtol=1e-4)
        fresh = self.run(*between, kernel=kernel)
        compression_plan.apply(fresh, CompressionPlan.from_json(plan.to_json()))
        fresh.load_state_dict(model.state_dict())
        assert torch.equal(answer(fresh, images()), answer(model, images()))

    def test_an_activation_between_two_convolutions_keeps_them_apart(self) -> None:
        assert convolution_merging.merge(self.run(nn.ReLU()), CompressionPlan(), images(1)) == (
            CompressionPlan(),
            [],
        )

    def test_a_second_convolution_with_padding_is_not_merged(self) -> None:
        assert convolution_merging.merge(self.run(second=3), CompressionPlan(), images(1)) == (
            CompressionPlan(),
            [],
        )

    @pytest.mark.parametrize("norm", [{"track_running_stats": False}, {"affine": False}])
    def test_a_norm_that_cannot_be_folded_is_not_merged(self, norm: dict[str, bool]) -> None:
        kept = self.run(nn.BatchNorm2d(6, **norm))
        assert convolution_merging.merge(kept, CompressionPlan(), images(1)) == (
            CompressionPlan(),
            [],
        )

    def test_a_convolution_whose_output_is_read_twice_is_not_merged(self) -> None:
        model = nn.Sequential(
            nn.Conv2d(1, 6, 1), Residual(nn.Conv2d(6, 6, 1)), nn.Flatten(), nn.Linear(384, 3)
        )
        assert convolution_merging.merge(model.eval(), CompressionPlan(), images(1)) == (
            CompressionPlan(),
            [],
        )

    def test_a_merge_that_adds_more_work_than_an_operator_costs_is_left(self) -> None:
        narrow = nn.Sequential(nn.Conv2d(128, 2, 1), nn.Conv2d(2, 128, 1)).eval()
        example = torch.zeros(1, 128, SIDE, SIDE)
        assert convolution_merging.merge(narrow, CompressionPlan(), example) == (
            CompressionPlan(),
            [],
        )

    def test_a_model_that_cannot_be_followed_is_left(self) -> None:
        class Branch(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(1, 2, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y: torch.Tensor = self.conv(x)
                return y if y.sum() > 0 else -y

        assert convolution_merging.merge(Branch(), CompressionPlan(), images(1)) == (
            CompressionPlan(),
            [],
        )
