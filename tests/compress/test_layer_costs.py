from __future__ import annotations

from tiny_nets import build, images
from torch import nn

from fettle.compress import layer_costs
from fettle.compress.layer_costs import LayerCost


def test_parameters_and_multiply_accumulates_are_those_counted_by_hand() -> None:
    found = {layer.name: layer for layer in layer_costs.count_layers(build("mobile"), images(1))}
    assert found["stem"] == LayerCost("stem", "Conv2d", 16, 16 * 9, 64 * 16 * 9)
    assert found["stem_norm"] == LayerCost("stem_norm", "BatchNorm2d", 16, 32, 0)
    assert found["expand"] == LayerCost("expand", "Conv2d", 48, 48 * 16 + 48, 64 * 48 * 16)
    assert found["depthwise"] == LayerCost("depthwise", "Conv2d", 48, 48 * 9, 64 * 48 * 9)
    assert found["classifier"] == LayerCost("classifier", "Linear", 3, 16 * 3 + 3, 16 * 3)


def test_the_sum_over_layers_is_the_whole_model() -> None:
    model = build("branches")
    params, macs = layer_costs.totals(layer_costs.count_layers(model, images(1)))
    assert params == sum(p.numel() for p in model.parameters())
    assert macs == 64 * (16 * 9 + 32 + 24 * 48) + 24 * 3


def test_counting_leaves_no_hook_and_the_mode_alone() -> None:
    model = build("mobile").train()
    layer_costs.count_layers(model, images(1))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_linear_over_a_sequence_counts_every_place() -> None:
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 4, bias=False))
    assert layer_costs.totals(layer_costs.count_layers(model, images(1))) == (256, 256)


def test_layers_are_paired_by_name_and_a_removed_one_has_zeros() -> None:
    before = [LayerCost("a", "Conv2d", 16, 100, 1000), LayerCost("b", "Linear", 3, 30, 30)]
    rows = layer_costs.compare_layers(before, [LayerCost("a", "Conv2d", 8, 50, 400)])
    assert rows.to_json() == [
        {
            "layer": "a",
            "kind": "Conv2d",
            "channels_before": 16,
            "channels_after": 8,
            "params_before": 100,
            "params_after": 50,
            "macs_before": 1000,
            "macs_after": 400,
        },
        {
            "layer": "b",
            "kind": "Linear",
            "channels_before": 3,
            "channels_after": 0,
            "params_before": 30,
            "params_after": 0,
            "macs_before": 30,
            "macs_after": 0,
        },
    ]
