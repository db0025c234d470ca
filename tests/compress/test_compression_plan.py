from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_nets import build
from torch import nn

from fettle.compress import compression_plan, replacement_layers
from fettle.compress.compression_plan import Architecture, CompressionPlan, KeptChannels
from fettle.compress.replacement_layers import Part
from fettle.errors import ModelError


def test_a_plan_survives_json() -> None:
    plan = CompressionPlan(
        {
            "a": KeptChannels(16, (0, 3), 8, (1, 2)),
            "b": KeptChannels(4, (2,)),
            "c": KeptChannels(4, None, 8, (0, 7)),
        }
    )
    assert CompressionPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_plan_of_the_first_schema_still_loads() -> None:
    old = {"schema": 1, "layers": {"a": {"out": [0], "out_full": 4, "in": None, "in_full": None}}}
    assert CompressionPlan.from_json(old) == CompressionPlan({"a": KeptChannels(4, (0,))})


def test_a_plan_with_replaced_parts_and_another_architecture_survives_json() -> None:
    chain = nn.Sequential(nn.Conv2d(4, 2, (3, 1), padding=(1, 0), bias=False), nn.ReLU6())
    plan = CompressionPlan(
        {"a.0": KeptChannels(2, (1,), 4, None)},
        {
            "a": replacement_layers.describe_module(chain),
            "b": replacement_layers.describe_module(nn.Identity()),
        },
        Architecture("small_cnn", {"width": 8}),
    )
    assert CompressionPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_replaced_part_voids_what_the_plan_said_inside_it_and_can_be_cut_later() -> None:
    model = build("plain")
    plan = CompressionPlan(
        {
            "block1.0.0": KeptChannels(16, (0, 1), 1),
            "block1.1.0": KeptChannels(16, None, 16, (0, 1)),
        }
    )
    compression_plan.apply(model, plan)
    part = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.Conv2d(3, 2, 3, padding=1))
    plan = compression_plan.replace_submodule(model, plan, "block1.0.0", part)
    assert set(plan.layers) == {"block1.1.0"}
    plan = compression_plan.remove_channels(
        plan, dict(model.named_modules()), {("block1.0.0.1", "in"): {1}}
    )
    compression_plan.cut_channels(part[1], out=None, in_=(0, 2))  # type: ignore[arg-type] # a Conv2d
    fresh = build("plain")
    compression_plan.apply(fresh, plan)
    assert fresh.get_submodule("block1.0.0.1").weight.shape == (2, 2, 3, 3)  # type: ignore[union-attr] # as above
    assert fresh.get_submodule("block1.0.0.0").weight.shape == (3, 1, 1, 1)  # type: ignore[union-attr] # as above


def test_a_plan_that_replaces_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match=r"layer 'gone': got no such module"):
        compression_plan.apply(
            build("plain"),
            CompressionPlan(replaced={"gone": replacement_layers.describe_module(nn.Identity())}),
        )


@pytest.mark.parametrize(
    "module",
    [
        nn.Identity(),
        nn.Conv2d(4, 8, (3, 5), stride=2, padding=(1, 2), groups=4, bias=False),
        nn.Linear(4, 6),
        nn.BatchNorm2d(6, eps=1e-3),
        nn.ZeroPad2d((0, 1, 0, 1)),
        nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU6())),
    ],
)
def test_a_part_builds_the_module_it_was_written_from(module: nn.Module) -> None:
    made = replacement_layers.build_module(
        Part.from_json(json.loads(json.dumps(replacement_layers.describe_module(module).to_json())))
    )
    assert repr(made) == repr(module)
    assert replacement_layers.describe_module(made) == replacement_layers.describe_module(module)


def test_a_plan_of_another_schema_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        CompressionPlan.from_json({"schema": 7, "layers": {}})
    assert str(caught.value) == (
        "the compression plan has another schema: got 7; this version reads schema 1, 2, 3. Fix: "
        "run `fettle run` again, which writes a new plan."
    )


def test_a_plan_for_another_width_is_refused_with_the_layer() -> None:
    with pytest.raises(ModelError) as caught:
        compression_plan.apply(
            build("mobile"), CompressionPlan({"expand": KeptChannels(64, (0, 1), 16)})
        )
    assert str(caught.value) == (
        "the compression plan does not fit the model: layer 'expand': got widths (out, in) "
        "(48, 16); the plan was made for (64, 16). Fix: build the model with the family and "
        "options that the plan was made with."
    )


def test_a_plan_for_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match=r"layer 'gone': got no such layer"):
        compression_plan.apply(build("mobile"), CompressionPlan({"gone": KeptChannels(64, (0, 1))}))


def test_an_empty_plan_changes_nothing() -> None:
    model = build("mobile")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compression_plan.apply(model, CompressionPlan())
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 6, 3), (6, 4)),
        (nn.Conv1d(4, 6, 3), (6, 4)),
        (nn.Conv2d(6, 6, 3, groups=6), (6, None)),
        (nn.Conv2d(6, 12, 3, groups=6), None),
        (nn.Conv2d(6, 6, 3, groups=2), None),
        (nn.ConvTranspose2d(4, 6, 3), None),
        (nn.Linear(4, 6), (6, 4)),
        (nn.BatchNorm2d(6), (6, None)),
        (nn.LayerNorm(6), None),
        (nn.ReLU(), None),
    ],
)
def test_only_layers_with_plain_channels_can_be_cut(
    layer: nn.Module, expected: tuple[int, int | None] | None
) -> None:
    assert compression_plan.channel_counts(layer) == expected


def test_a_cut_layer_states_its_new_widths_and_keeps_the_chosen_weights() -> None:
    conv = nn.Conv2d(4, 6, 3)
    weight, bias = conv.weight.detach().clone(), conv.bias.detach().clone()  # type: ignore[union-attr] # it has one
    compression_plan.cut_channels(conv, out=(1, 5), in_=(0, 2, 3))
    assert (conv.out_channels, conv.in_channels) == (2, 3)
    assert torch.equal(conv.weight, weight[[1, 5]][:, [0, 2, 3]])
    assert conv.bias is not None
    assert torch.equal(conv.bias, bias[[1, 5]])


def test_a_frozen_layer_stays_frozen_when_it_is_cut() -> None:
    layer = nn.Linear(4, 6).requires_grad_(False)
    compression_plan.cut_channels(layer, out=(1, 5), in_=None)
    assert not layer.weight.requires_grad


@given(st.sets(st.integers(0, 15), max_size=15), st.data())
def test_narrowing_twice_is_narrowing_once_by_both(first: set[int], data: st.DataObject) -> None:
    left = [at for at in range(16) if at not in first]
    second = data.draw(st.sets(st.integers(0, len(left) - 1), max_size=len(left)))
    layer = nn.Linear(4, 16)
    modules: dict[str, nn.Module] = {"a": layer}
    plan = compression_plan.remove_channels(CompressionPlan(), modules, {("a", "out"): first})
    kept = plan.layers["a"].out
    assert kept is not None
    compression_plan.cut_channels(layer, out=kept, in_=None)
    twice = compression_plan.remove_channels(plan, modules, {("a", "out"): second})
    assert twice.layers["a"] == KeptChannels(
        16, tuple(c for index, c in enumerate(left) if index not in second), 4, None
    )
