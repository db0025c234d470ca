from __future__ import annotations

import json

import pytest
import torch
from test_depth import chain
from tiny_nets import build, compression_context, images
from torch.nn import functional as F

from fettle.compress import channel_groups, sensitivity_analysis
from fettle.compress.technique import Block, GroupSensitivity, SensitivityReport

BATCHES = [(images(16, seed=at), torch.arange(16) % 3) for at in range(2)]


def bench(name: str) -> sensitivity_analysis.LossProbe:
    return sensitivity_analysis.loss_probe(build(name), BATCHES, images_max=100)


@pytest.mark.parametrize("name", ["plain", "mobile"])
def test_the_loss_from_kept_activations_is_the_loss_of_the_whole_model(name: str) -> None:
    found = bench(name)
    model = build(name)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train()  # the batch's own statistics
    with torch.no_grad():
        whole = sum(float(F.cross_entropy(model(x), y, reduction="sum")) for x, y in BATCHES) / 32
    assert found.loss() == pytest.approx(whole, rel=1e-5)
    for part, _ in found.chain:
        assert found.loss([part]) == pytest.approx(whole, rel=1e-5)


def test_silencing_a_group_is_felt_and_undone() -> None:
    found = bench("plain")
    group = channel_groups.find_groups(build("plain"), images(1), {})[0][0]
    before = found.loss()
    state = {n: t.clone() for n, t in found.modules[""].state_dict().items()}
    with sensitivity_analysis.masked_channels(found, group, range(group.width)):
        assert found.loss(group.producers) != pytest.approx(before, rel=1e-4)
    after = found.modules[""].state_dict()
    moving = ("running_mean", "running_var", "num_batches_tracked")
    assert all(torch.equal(t, after[n]) for n, t in state.items() if not n.endswith(moving))


def test_the_survey_leaves_the_model_alone() -> None:
    model = build("mobile")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sensitivity_analysis.measure_sensitivity(model, compression_context())
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    assert not model.training


@pytest.mark.parametrize("importance", ["l1", "l2", "taylor", "bn_scale", "random"])
def test_a_survey_measures_every_block_and_group(importance: str) -> None:
    found = sensitivity_analysis.measure_sensitivity(
        chain(), compression_context(), importance=importance
    )  # type: ignore[arg-type] # one of the Literal
    assert [block.name for block in found.blocks] == ["1.0", "1.1", "1.2"]
    assert found.blocks[1].loss_increase == pytest.approx(0, abs=1e-6)  # it does nothing
    assert abs(found.blocks[0].loss_increase) > 1e-4
    assert found.blocks[0].params == 16 * 16 * 9 + 32
    assert found.blocks[0].macs == 16 * 16 * 9 * 64
    assert [group.width for group in found.groups] == [16]
    assert [share for share, _ in found.groups[0].losses] == [0.75, 0.5, 0.25]
    assert found.images == 32


def test_a_model_that_cannot_be_traced_has_no_group_and_says_so() -> None:
    class Detached(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = torch.nn.Linear(1, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) == 1 and torch.is_grad_enabled():
                raise ValueError("no training on one image")
            logits: torch.Tensor = self.classifier(x.mean((2, 3)))
            return logits

    found = sensitivity_analysis.measure_sensitivity(Detached(), compression_context())
    assert found.groups == ()
    assert list(found.skipped) == [sensitivity_analysis.WHOLE]
    assert found.skipped[sensitivity_analysis.WHOLE].startswith(
        "the model cannot be traced for pruning"
    )


def test_without_shares_the_groups_are_listed_and_not_measured() -> None:
    found = sensitivity_analysis.measure_sensitivity(chain(), compression_context(), shares=())
    assert [(group.width, group.losses) for group in found.groups] == [(16, ())]
    assert len(found.blocks) == 3


def test_a_survey_survives_json() -> None:
    doc = sensitivity_analysis.document(
        sensitivity_analysis.measure_sensitivity(chain(), compression_context())
    ).to_json()
    assert json.loads(json.dumps(doc))["blocks"][1]["name"] == "1.1"
    assert set(doc) == {"loss", "images", "blocks", "groups", "skipped"}


@pytest.mark.parametrize(
    ("share", "removed", "rise"),
    [
        (1.0, [], 0.0),
        (0.875, [], 0.05),  # half way from 0 to 0.1
        (0.5, [], 0.3),
        (0.125, [], 0.9),  # on along the last slope
        (0.5, ["b"], 0.5),
    ],
)
def test_the_predicted_rise_is_read_off_a_line_between_what_was_measured(
    share: float, removed: list[str], rise: float
) -> None:
    group = GroupSensitivity(
        name="g", width=16, layers=("g",), losses=((0.75, 0.1), (0.5, 0.3), (0.25, 0.7))
    )
    block = Block(name="b", layers=(), params=1, macs=1, loss_increase=0.2)
    survey = SensitivityReport(layers=(), groups=(group,), blocks=(block,))
    found = sensitivity_analysis.predicted_increase(survey, shares={"g": share}, removed=removed)
    assert found == pytest.approx(rise)
