from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fettle import plugins
from fettle.models import input_size
from fettle.models.input_record import InputRecord

TABLE = json.loads(input_size.COSTS.read_text())
LITE0 = InputRecord(pretrained_px=224, least_px=32, cost="efficientnet_lite/0")


def choose(side: int, family: str, options: dict[str, Any] | None = None) -> input_size.InputSize:
    module = plugins.resolve("families", family, where="finetune.family")
    record = module.input_record(module.Params(**(options or {})), Path())
    return input_size.choose([side], record)


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (8, 32),  # the least that the family takes
        (28, 32),
        (32, 32),
        (45, 48),  # 32 would lose pixels
        (64, 64),
        (100, 96),
        (120, 128),
        (128, 128),
        (224, 128),  # 224 would cost three times as much
        (500, 128),
        (4000, 128),
    ],
)
def test_efficientnet_lite_gets_the_pixels_that_the_images_have_and_that_pay(
    side: int, expected: int
) -> None:
    assert choose(side, "efficientnet_lite").size_px == expected


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("efficientnet_lite", {"variant": 0}),
        ("efficientnet_lite", {"variant": 1}),
        ("efficientnet_lite", {"variant": 2}),
        ("resnet", {"depth": 18}),
        ("resnet", {"depth": 20}),
        ("small_cnn", {}),
        ("torch_module", {"entry": "mine:build"}),
    ],
)
def test_photos_never_fall_below_96_px(family: str, options: dict[str, Any]) -> None:
    for side in (200, 500, 3000):
        assert 96 <= choose(side, family, options).size_px <= 224


def test_the_dearer_network_gets_fewer_pixels() -> None:
    sides = [choose(500, "efficientnet_lite", {"variant": v}).size_px for v in (0, 1, 2)]
    assert sides == [128, 112, 96]


def test_a_stem_that_keeps_resolution_below_128_px_makes_those_dearer() -> None:
    """resnet 18 at 96 px costs eight times what it costs at 128."""
    assert choose(500, "resnet", {"depth": 18}).size_px == 128


def test_the_median_decides_and_not_one_thumbnail() -> None:
    assert input_size.choose([30, 500, 500, 500], LITE0).size_px == 128


def test_the_reason_says_what_the_images_are_and_what_more_would_cost() -> None:
    assert input_size.choose([400, 500, 600], LITE0).reason == (
        "half of the images have 500 px or more on their shorter side; 128 cost 1 times "
        "efficientnet_lite 0 at 128 px, 224 would cost 3.1"
    )
    assert input_size.choose([60], LITE0).reason == (
        "half of the images have 60 px or more on their shorter side; small images keep their "
        "pixels"
    )
    assert input_size.choose([10], LITE0).reason == (
        "half of the images have 10 px or more on their shorter side; the family takes 32 at least"
    )


def test_a_model_of_one_side_gets_that_side() -> None:
    found = input_size.choose([500], InputRecord(fixed_px=80, native=False))
    assert (found.size_px, found.reason) == (80, "the only side that the model takes")


@given(
    st.lists(st.integers(1, 9000), min_size=1, max_size=30), st.sampled_from(sorted(TABLE["costs"]))
)
def test_a_side_is_one_that_params_takes_and_invents_few_pixels(sides: list[int], row: str) -> None:
    record = InputRecord(pretrained_px=240, least_px=32, cost=row)
    found = input_size.choose(sides, record).size_px
    assert 8 <= found <= 1024
    middle = sorted(sides)[(len(sides) - 1) // 2]
    assert found <= max(32, 240)
    assert found <= max(32, round(middle * input_size.ENLARGED_MAX))


def macs_per_pixel(family: str, options: dict[str, Any], side: int) -> float:
    module = plugins.resolve("families", family, where="finetune.family")
    model = module.build(
        module.Params(**options), classes=10, channels=3, size_px=side, project=Path()
    )
    total = 0

    def count(layer: nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += out[0].numel() * layer.weight[0].numel()  # type: ignore[operator, union-attr]

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    return total / side**2


@pytest.mark.parametrize("row", sorted(TABLE["costs"]))
def test_the_committed_costs_are_the_networks_own_multiply_accumulates(row: str) -> None:
    family, _, which = row.partition("/")
    key = {"efficientnet_lite": "variant", "resnet": "depth"}.get(family)
    options: dict[str, Any] = {key: int(which)} if key else {}
    if family == "efficientnet_lite":
        options["pretrained"] = False
    unit = macs_per_pixel("efficientnet_lite", {"variant": 0, "pretrained": False}, 128)
    for start, cost in TABLE["costs"][row].items():
        side = max(32, int(start))
        assert macs_per_pixel(family, options, side) / unit == pytest.approx(cost, rel=0.02)
