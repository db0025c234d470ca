from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny_nets import SIDE, Fits, answer, build, compression_context, images
from torch import nn

from fettle.compress import compression_plan, input_resizing, layer_costs
from fettle.compress.compression_plan import CompressionPlan, KeptChannels
from fettle.compress.technique import SensitivityReport
from fettle.compress.techniques import prune, resolution
from fettle.errors import ModelError


def report(size_px: int) -> SensitivityReport:
    return SensitivityReport(layers=(), size_px=size_px)


def shrunk(model: nn.Module, size_px: int, plan: CompressionPlan | None = None) -> CompressionPlan:
    asked = resolution.Params(size_px=size_px, recover_epochs=0)
    start = CompressionPlan() if plan is None else plan
    return resolution.apply(model, start, asked, compression_context()).plan


def test_the_model_costs_less_by_the_square_of_the_side() -> None:
    model = build("mobile")
    before = layer_costs.totals(layer_costs.count_layers(model, images(1)))
    plan = shrunk(model, SIDE // 2)
    after = layer_costs.totals(layer_costs.count_layers(model, images(1)))
    assert after[0] == before[0]
    assert after[1] < before[1] / 3.9
    assert plan == CompressionPlan(input_size_px=SIDE // 2)


def test_it_answers_large_images_as_it_answers_the_same_ones_made_small() -> None:
    model = build("mobile")
    shrunk(model, SIDE // 2)
    given = images(4)
    by_itself = answer(model, given)
    input_resizing.remove(model)
    small = answer(model, input_resizing.scale(given, SIDE // 2))
    assert input_resizing.size_of(model) is None
    input_resizing.install(model, SIDE // 2)
    torch.testing.assert_close(by_itself, small)
    assert input_resizing.size_of(model) == SIDE // 2


def test_a_copy_takes_the_same_images() -> None:
    model = build("mobile")
    shrunk(model, SIDE // 2)
    assert input_resizing.size_of(copy.deepcopy(model)) == SIDE // 2


def test_a_second_step_counts_from_the_first_and_leaves_one_resizing() -> None:
    model = build("mobile")
    plan = shrunk(model, 6)
    with pytest.raises(ModelError, match="the model takes images of 6 px"):
        shrunk(model, 6, plan)
    assert shrunk(model, 4, plan).input_size_px == input_resizing.size_of(model) == 4
    assert len(model._forward_pre_hooks) == 1


def test_a_side_that_is_not_smaller_is_refused() -> None:
    with pytest.raises(ModelError) as refused:
        shrunk(build("mobile"), SIDE)
    assert str(refused.value) == (
        f"resolution does not make the images smaller: got {SIDE} px; the model takes images of "
        f"{SIDE} px. Fix: set size_px of the step to less than {SIDE}, or take the step out."
    )


def test_a_network_that_flattens_its_maps_is_refused_with_the_reason() -> None:
    with pytest.raises(ModelError) as refused:
        shrunk(build("flat"), SIDE // 2)
    assert str(refused.value).startswith(f"the model does not run on images of {SIDE // 2} px: ")
    assert "take `resolution` out of compress.recipe" in str(refused.value)


def test_it_trains_once_and_says_both_sides() -> None:
    fit = Fits()
    asked = resolution.Params(size_px=6, recover_epochs=3)
    outcome = resolution.apply(
        build("mobile"), CompressionPlan(), asked, compression_context(fit=fit)
    )
    assert outcome.notes == (f"images of 6 px, before {SIDE}",)
    assert fit.asked == [("resolution", 3)]


def test_channels_are_cut_after_it_and_the_plan_keeps_both() -> None:
    model = build("mobile")
    plan = shrunk(model, SIDE // 2)
    asked = prune.Params(keep_fraction=0.5, recover_epochs=0)
    plan = prune.apply(model, plan, asked, compression_context()).plan
    assert plan.input_size_px == SIDE // 2
    assert plan.layers
    fresh = build("mobile", seed=9)
    compression_plan.apply(fresh, CompressionPlan.from_json(json.loads(json.dumps(plan.to_json()))))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(answer(fresh, images(2)), answer(model, images(2)))


def test_a_part_put_in_another_s_place_keeps_the_side() -> None:
    plan = CompressionPlan({"expand": KeptChannels(48, (0,))}, input_size_px=6)
    changed = compression_plan.replace_submodule(build("mobile"), plan, "expand", nn.Identity())
    assert changed.input_size_px == 6


@pytest.mark.parametrize(
    ("side", "proposed"), [(128, [96, 80, 64]), (96, [72, 64, 48]), (32, [24, 20, 16]), (18, [])]
)
def test_proposals_are_shares_of_the_present_side_down_to_sixteen(
    side: int, proposed: list[int]
) -> None:
    found = resolution.proposals(report(side), multiple=8, seed=0)
    assert [one["size_px"] for one in found] == proposed
