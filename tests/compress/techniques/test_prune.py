"""Pruning: which channels go, how many, and that the plan rebuilds the same network."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning import options, widths
from tiny_nets import NETS, Fits, answer, build, compression_context, images
from torch import nn

from fettle.compress import channel_groups, compression_plan
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import GroupSensitivity, SensitivityReport
from fettle.compress.techniques import prune

IMPORTANCES = ("l1", "l2", "taylor", "bn_scale", "random")


def silence(model: nn.Module, plan: CompressionPlan) -> None:
    """Zero, in a full model, every output channel that `plan` removes."""
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, kept in plan.layers.items():
            if kept.out is None:
                continue
            gone = [at for at in range(kept.out_full) if at not in kept.out]
            for part in ("weight", "bias"):
                tensor = getattr(modules[name], part)
                if tensor is not None:
                    tensor[gone] = 0


@pytest.mark.parametrize("importance", ["l2", "random"])
@pytest.mark.parametrize("name", sorted(NETS))
def test_a_pruned_model_answers_like_the_full_one_with_those_channels_silent(
    name: str, importance: str
) -> None:
    full = build(name)
    pruned = copy.deepcopy(full)
    outcome = prune.apply(
        pruned, CompressionPlan(), options(importance=importance), compression_context()
    )
    silence(full, outcome.plan)
    torch.testing.assert_close(
        answer(pruned, images()), answer(full, images()), atol=1e-4, rtol=1e-4
    )
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in full.parameters())


@given(
    full=st.integers(1, 1500),
    keep=st.floats(0.01, 1.0),
    multiple=st.sampled_from([1, 4, 8, 16, 32]),
    already=st.floats(0.1, 1.0),
)
def test_a_width_is_rounded_to_the_multiple_and_never_below_one_nor_above_the_layer(
    full: int, keep: float, multiple: int, already: float
) -> None:
    width = max(1, int(full * already))
    count = prune.rounded_count(width, full, keep, multiple)
    assert 1 <= count <= width
    assert count % multiple == 0 or count == width
    if multiple <= full * keep <= width:
        assert abs(count - full * keep) <= multiple / 2 or count == width
    if width >= multiple:
        assert count >= multiple


def test_layers_narrower_than_one_multiple_are_left_whole() -> None:
    model = build("mobile")
    outcome = prune.apply(
        model, CompressionPlan(), options(keep_fraction=0.1), compression_context(multiple=32)
    )
    assert widths(model)["stem"] == 16
    assert widths(model)["expand"] == 32
    assert "stem" not in outcome.plan.layers


def test_the_share_to_keep_falls_in_a_straight_line_and_ends_at_what_was_asked() -> None:
    shares = [prune.step_fraction(0.25, step, 3) for step in (1, 2, 3)]
    assert shares == pytest.approx([0.75, 0.5, 0.25])


def test_steps_end_at_the_same_widths_as_one_step() -> None:
    at_once, in_steps = build("mobile"), build("mobile")
    prune.apply(
        at_once,
        CompressionPlan(),
        options(keep_fraction=0.25, steps=1),
        compression_context(multiple=1),
    )
    prune.apply(
        in_steps,
        CompressionPlan(),
        options(keep_fraction=0.25, steps=3),
        compression_context(multiple=1),
    )
    assert widths(at_once) == widths(in_steps)
    assert widths(at_once)["expand"] == 12


def test_each_step_is_followed_by_a_recovery_with_a_name_of_its_own() -> None:
    fit = Fits()
    asked = prune.Params(steps=3, recover_epochs=4, learning_rate=1e-3, temperature=2, alpha=0.5)
    prune.apply(build("plain"), CompressionPlan(), asked, compression_context(fit=fit))
    assert fit.asked == [("step-1", 4), ("step-2", 4), ("step-3", 4)]
    assert fit.settings == [(1e-3, 2.0, 0.5)] * 3


def test_no_recovery_epochs_means_no_training() -> None:
    fit = Fits()
    prune.apply(build("plain"), CompressionPlan(), options(steps=2), compression_context(fit=fit))
    assert fit.asked == []


def test_a_depthwise_convolution_stays_depthwise_and_as_wide_as_its_neighbours() -> None:
    model = build("mobile")
    prune.apply(model, CompressionPlan(), options(keep_fraction=0.5), compression_context())
    depthwise = model.depthwise
    assert isinstance(depthwise, nn.Conv2d)
    assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == 24
    assert widths(model)["expand"] == widths(model)["depthwise_norm"] == 24


def test_layers_joined_by_an_addition_keep_the_same_channels() -> None:
    model = build("mobile")
    plan = prune.apply(
        model, CompressionPlan(), options(keep_fraction=0.5), compression_context()
    ).plan
    assert plan.layers["stem"].out == plan.layers["project"].out
    assert plan.layers["stem"].out == plan.layers["expand"].in_


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_pruning_twice_gives_the_same_plan_and_the_same_weights(importance: str) -> None:
    runs = []
    for _ in range(2):
        model = build("mobile")
        asked = options(importance=importance, steps=2, bn_reestimate=True)
        plan = prune.apply(model, CompressionPlan(), asked, compression_context(seed=3)).plan
        runs.append((plan, model.state_dict()))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_random_importance_follows_the_seed() -> None:
    plans = [
        prune.apply(
            build("plain"),
            CompressionPlan(),
            options(importance="random"),
            compression_context(seed=s),
        ).plan
        for s in (1, 2)
    ]
    assert plans[0] != plans[1]


@pytest.mark.parametrize("importance", ["l1", "l2", "taylor"])
def test_the_channels_that_matter_stay(importance: str) -> None:
    model = build("flat")
    strong = (1, 4, 5, 9, 12, 17, 20, 23)
    with torch.no_grad():
        weak = [at for at in range(24) if at not in strong]
        model.first.weight[weak] *= 1e-3  # type: ignore[index, union-attr] # a parameter
        model.hidden.weight.view(32, 24, 16)[:, weak] *= 1e-3  # type: ignore[operator, union-attr]
    asked = options(importance=importance, keep_fraction=1 / 3)
    plan = prune.apply(model, CompressionPlan(), asked, compression_context()).plan
    assert plan.layers["first"].out == strong


def test_bn_scale_keeps_the_channels_with_the_largest_scale() -> None:
    model = build("plain")
    norm = model.block1[0][1]  # type: ignore[index] # a Sequential
    with torch.no_grad():
        norm.weight[:] = torch.linspace(1.6, 0.1, 16)
    plan = prune.apply(
        model, CompressionPlan(), options(importance="bn_scale"), compression_context()
    ).plan
    assert plan.layers["block1.0.0"].out == tuple(range(8))


def test_equal_scores_keep_the_channels_with_the_lower_numbers() -> None:
    model = build("flat")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    plan = prune.apply(
        model, CompressionPlan(), options(keep_fraction=1 / 3), compression_context()
    ).plan
    assert plan.layers["first"].out == tuple(range(8))


def test_global_scope_takes_more_from_the_layer_that_has_less_to_lose() -> None:
    flat, steep = torch.ones(64), torch.cat([torch.full((16,), 10.0), torch.full((48,), 0.1)])
    counts = prune.choose_counts(
        {"flat": flat, "steep": steep},
        full={"flat": 64, "steep": 64},
        keep_fraction=0.6,
        multiple=8,
        scope="global",
    )
    assert counts == {"flat": 64, "steep": 16}


def test_uniform_scope_takes_the_same_share_everywhere() -> None:
    scores = {"a": torch.ones(64), "b": torch.arange(32.0)}
    counts = prune.choose_counts(
        scores, full={"a": 64, "b": 32}, keep_fraction=0.5, multiple=8, scope="uniform"
    )
    assert counts == {"a": 32, "b": 16}


def test_tracing_leaves_the_mode_of_the_model_alone() -> None:
    model = build("mobile").train()
    channel_groups.find_groups(model, images(1), {})
    assert model.training


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(sorted(NETS)),
    keep=st.floats(0.05, 1.0),
    multiple=st.sampled_from([1, 4, 8]),
    steps=st.integers(1, 3),
    importance=st.sampled_from(IMPORTANCES),
    scope=st.sampled_from(["uniform", "global"]),
)
def test_a_plan_on_a_fresh_model_with_the_weights_gives_the_same_answers(
    name: str, keep: float, multiple: int, steps: int, importance: str, scope: str
) -> None:
    model = build(name)
    asked = options(
        keep_fraction=keep, steps=steps, importance=importance, scope=scope, bn_reestimate=True
    )
    outcome = prune.apply(model, CompressionPlan(), asked, compression_context(multiple=multiple))
    fresh = build(name, seed=99)
    compression_plan.apply(fresh, CompressionPlan.from_json(outcome.plan.to_json()))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(answer(fresh, images()), answer(model, images()))
    again = prune.apply(fresh, outcome.plan, asked, compression_context(multiple=multiple))
    third = build(name, seed=98)
    compression_plan.apply(third, again.plan)
    third.load_state_dict(fresh.state_dict())
    assert torch.equal(answer(third, images()), answer(fresh, images()))


def test_proposals_go_from_mild_to_harsh_and_each_takes_channels_from_a_group() -> None:
    groups = tuple(
        GroupSensitivity(name=name, width=width, layers=(name,), losses=())
        for name, width in (("a", 32), ("b", 16))
    )
    found = prune.proposals(SensitivityReport(layers=(), groups=groups), multiple=8, seed=0)
    # 32 and 16 channels in eighths: all of them at 0.9, 24 and 8 at 0.7, 16 and 8 at 0.5
    assert found == [
        {"keep_fraction": 0.7, "importance": "taylor", "scope": "global"},
        {"keep_fraction": 0.5, "importance": "taylor", "scope": "global"},
    ]


def test_nothing_is_proposed_where_every_group_is_one_multiple_wide() -> None:
    group = GroupSensitivity(name="a", width=8, layers=("a",), losses=())
    assert prune.proposals(SensitivityReport(layers=(), groups=(group,)), multiple=8, seed=0) == []
