"""Layers and models that pruning leaves alone or refuses, each with its reason."""

from __future__ import annotations

import pytest
import torch
from pruning import options, widths
from tiny_nets import NETS, SIDE, answer, build, compression_context, images
from torch import nn

from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.techniques import prune
from fettle.errors import ModelError


def test_a_protected_layer_keeps_its_channels_and_is_named_with_the_reason() -> None:
    model = build("mobile")
    before = widths(model)
    outcome = prune.apply(
        model,
        CompressionPlan(),
        options(),
        compression_context(protected={"project": "the family says so"}),
    )
    after = widths(model)
    assert {n: after[n] for n in ("stem", "project")} == {n: before[n] for n in ("stem", "project")}
    assert after["expand"] < before["expand"]
    assert outcome.skipped["project"] == "the family says so"
    assert outcome.skipped["stem"] == ("it shares its channels with 'project': the family says so")


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_classifier_is_left_alone_even_when_nobody_protects_it(name: str) -> None:
    model = build(name)
    outcome = prune.apply(
        model, CompressionPlan(), options(keep_fraction=0.1), compression_context(multiple=1)
    )
    assert widths(model)["classifier"] == 3
    assert outcome.skipped == {"classifier": "its channels are the model's outputs"}


class Odd(nn.Module):
    """Layers that cannot be cut, each in a chain of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(1, 16, 3, padding=1)
        self.inside = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.scaled = nn.Conv2d(16, 16, 1)
        self.scale = nn.Parameter(torch.ones(1, 16, 1, 1))
        self.normed = nn.Conv2d(16, 16, 1)
        self.group_norm = nn.GroupNorm(4, 16)
        self.twice = nn.Conv2d(16, 16, 1)
        self.free = nn.Conv2d(16, 16, 1)
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inside(self.grouped(x))
        x = self.scaled(x) * self.scale
        x = self.group_norm(self.normed(x))
        x = self.free(self.twice(self.twice(x)))
        logits: torch.Tensor = self.classifier(x.mean((2, 3)))
        return logits


def test_layers_that_cannot_be_cut_are_skipped_by_name_with_the_reason() -> None:
    torch.manual_seed(0)
    model = Odd()
    before = widths(model)
    outcome = prune.apply(model, CompressionPlan(), options(), compression_context())
    after = widths(model)
    assert [name for name in before if after[name] < before[name]] == ["free"]
    assert outcome.skipped["grouped"] == (
        "its channels meet 'inside' (Conv2d), which cannot be cut"
    )
    assert outcome.skipped["scaled"] == (
        "its channels meet an operation that cannot be cut (PARAMETER)"
    )
    assert outcome.skipped["normed"] == (
        "its channels meet 'group_norm' (GroupNorm), which cannot be cut"
    )
    assert outcome.skipped["twice"] == "it runs more than once"
    assert answer(model, images()).shape == (12, 3)


def test_layers_with_shared_weights_are_left_alone() -> None:
    model = build("plain")
    first, second = model.block1[1][0], model.block1[0][0]  # type: ignore[index] # a Sequential
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    twin = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    twin.weight = first.weight
    model.block1.insert(2, twin)  # type: ignore[operator] # a Sequential
    outcome = prune.apply(model, CompressionPlan(), options(), compression_context())
    assert outcome.skipped["block1.2"] == "it shares its weights with another layer"


def test_a_model_with_nothing_to_prune_says_so() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3))
    outcome = prune.apply(model, CompressionPlan(), options(), compression_context())
    assert outcome.notes == ("no layer could be pruned; see the reasons under skipped",)
    assert outcome.skipped == {"1": "its channels are the model's outputs"}


def test_bn_scale_skips_a_group_without_batchnorm() -> None:
    outcome = prune.apply(
        build("flat"), CompressionPlan(), options(importance="bn_scale"), compression_context()
    )
    assert outcome.skipped["first"] == "importance 'bn_scale' finds nothing to read in its group"


class Fixed(nn.Module):
    """Writes its channel count down in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.next = nn.Conv2d(16, 16, 1)
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.next(self.conv(x).view(len(x), 16, SIDE, SIDE))
        logits: torch.Tensor = self.classifier(x.mean((2, 3)))
        return logits


def test_a_model_that_does_not_run_after_a_cut_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        prune.apply(Fixed(), CompressionPlan(), options(), compression_context())
    assert str(caught.value) == (
        "the model does not run after pruning: got shape '[1, 16, 8, 8]' is invalid for input of "
        "size 512; a fixed channel count in its forward (a view, a shuffle) does not follow a cut. "
        "Fix: take `prune` out of compress.recipe, or name those layers in the family's "
        "protected()."
    )


class Detached(nn.Module):
    """Leaves torch on the way, so that no channel can be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.conv(x).detach().numpy()).mean((2, 3))


def test_a_layer_that_tracing_does_not_reach_is_named() -> None:
    outcome = prune.apply(Detached(), CompressionPlan(), options(), compression_context())
    assert outcome.skipped == {"conv": "no channel of it was met when the model was traced"}
    assert outcome.plan == CompressionPlan()


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"only batches of 32, not {len(x)}")


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        prune.apply(Broken(), CompressionPlan(), options(), compression_context())
    assert str(caught.value) == (
        "the model cannot be traced for pruning: got ValueError: only batches of 32, not 1; "
        "pruning follows each channel from layer to layer. Fix: take `prune` out of "
        "compress.recipe, or simplify the model's forward."
    )
