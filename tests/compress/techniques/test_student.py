from __future__ import annotations

import pytest
import torch
from tiny_nets import Fits, answer, build, compression_context, images

from fettle.compress import layer_costs
from fettle.compress.compression_plan import Architecture, CompressionPlan, KeptChannels
from fettle.compress.technique import SensitivityReport
from fettle.compress.techniques import student

SMALL = {"width": 8, "depth": 1, "blocks": 2}


def test_the_student_stands_in_the_model_s_place_and_the_old_plan_is_void() -> None:
    fit, model = Fits(), build("plain")
    asked = student.Params(family="small_cnn", options=SMALL, epochs=7)
    old = CompressionPlan({"block1.0.0": KeptChannels(16, (0, 1), 1)})
    outcome = student.apply(model, old, asked, compression_context(fit=fit))
    assert outcome.plan == CompressionPlan(architecture=Architecture("small_cnn", SMALL))
    assert outcome.model is not None
    assert outcome.model is not model
    assert fit.models == [outcome.model]
    assert fit.asked == [("student", 7)]
    assert answer(outcome.model, images()).shape == (12, 3)
    assert outcome.notes == ("small_cnn: 1,323 parameters in place of 16,563",)


def test_the_same_seed_draws_the_same_student_and_leaves_torch_s_own_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (
        student.apply(
            build("plain", seed=5), CompressionPlan(), student.Params(), compression_context()
        ).model
        for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert torch.equal(answer(first, images()), answer(second, images()))
    torch.manual_seed(5)
    student.apply(torch.nn.Identity(), CompressionPlan(), student.Params(), compression_context())
    assert torch.equal(torch.rand(1), expected)


def test_students_are_proposed_while_they_are_half_the_model_or_less() -> None:
    def widths(params: int) -> list[int]:
        layer = layer_costs.LayerCost("a", "Conv2d", 8, params, 1)
        survey = SensitivityReport(layers=(layer,), as_built=True)
        found = student.proposals(survey, multiple=8, seed=0)
        return [one["options"]["width"] for one in found]

    whole = student.proposals(
        SensitivityReport(
            layers=(layer_costs.LayerCost("a", "Conv2d", 8, 3_000_000, 1),), as_built=True
        ),
        multiple=8,
        seed=0,
    )
    assert {one["epochs"] for one in whole} == {150}
    assert widths(3_000_000) == [32, 12, 8]
    assert widths(190_000) == [12, 8]  # 387,360 weights at width 32, 54,540 at 12
    assert widths(60_000) == [8]
    assert widths(10_000) == []


def test_no_student_is_proposed_of_a_model_that_was_worked_on() -> None:
    survey = SensitivityReport(layers=(layer_costs.LayerCost("a", "Conv2d", 8, 3_000_000, 1),))
    assert student.proposals(survey, multiple=8, seed=0) == []


@pytest.mark.parametrize(
    ("size_px", "stride"), [(8, 1), (32, 1), (45, 1), (46, 2), (64, 2), (90, 2), (91, 4), (224, 4)]
)
def test_the_stem_of_a_proposed_student_grows_with_the_image(size_px: int, stride: int) -> None:
    layer = layer_costs.LayerCost("a", "Conv2d", 8, 3_000_000, 1)
    survey = SensitivityReport(layers=(layer,), as_built=True, size_px=size_px)
    found = student.proposals(survey, multiple=8, seed=0)
    assert {one["options"].get("stem_stride", 1) for one in found} == {stride}
