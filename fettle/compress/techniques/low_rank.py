"""Low-rank factorization: large layers become two thin ones by SVD, where that saves enough.

A linear layer or 1x1 convolution of I inputs and O outputs becomes I -> r -> O, a kxk convolution
becomes a kxk to r channels and a 1x1 back (Zhang et al. 2016, arXiv:1505.06798, without its data
term): r (I k^2 + O) multiply-accumulates a pixel instead of I k^2 O. The weights are the closest of
that rank (Eckart and Young 1936). Each split adds an operator, so a small layer is left, with the
reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeGuard

from pydantic import Field

from fettle.compress import batchnorm_statistics, compression_plan, layer_costs
from fettle.compress.convolution_merging import ADDED_MACS_MAX, height_width
from fettle.compress.technique import (
    Capabilities,
    CompressionContext,
    SensitivityReport,
    TechniqueResult,
    recover,
)
from fettle.params_schema import Fraction, Options, Strict

if TYPE_CHECKING:
    from torch import nn

    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=True,
    shrinks_macs=True,
    keeps_shapes=False,
)

PROPOSED_FRACTIONS = (0.5, 0.25)


class Params(Strict):
    """Rank options: `rank_fraction` of the full rank, rounded up to the channel multiple.

    A layer is split where its multiply-accumulates fall by `macs_ratio_min` or more, and by
    `macs_saved_min` an image: below that the added operator costs more than the split saves.
    """

    rank_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.25
    macs_ratio_min: Annotated[float, Field(gt=1)] = 1.5
    macs_saved_min: Annotated[int, Field(ge=0)] = ADDED_MACS_MAX
    recover_epochs: Annotated[int, Field(ge=0)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9


def proposals(sensitivity: SensitivityReport, *, multiple: int, seed: int) -> list[Options]:
    """Propose two ranks, where one layer at least is large enough for a split to pay."""
    del multiple, seed
    largest = max((layer.macs for layer in sensitivity.layers), default=0)
    if largest < 2 * ADDED_MACS_MAX:
        return []
    return [{"rank_fraction": fraction} for fraction in PROPOSED_FRACTIONS]


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Split layers of `model` in place and train it; return the plan and the layers left, why."""
    macs = {layer.name: layer.macs for layer in layer_costs.count_layers(model, context.example)}
    skipped: dict[str, str] = {}
    said: list[str] = []
    for name, layer in list(model.named_modules()):
        if not _is_kind(layer):
            continue
        rank = _rank(layer, options.rank_fraction, context.channel_multiple)
        reason = context.protected.get(name) or _obstacle(layer, macs[name], rank, options)
        if reason:
            skipped[name] = reason
            continue
        plan = compression_plan.replace_submodule(model, plan, name, factorize_layer(layer, rank))
        said.append(f"'{name}' goes through {rank} channels")
    if said:
        batchnorm_statistics.reestimate(
            model, context.batches(), images_max=batchnorm_statistics.IMAGES_MAX
        )
        recover(model, options, context, phase="low-rank")
    notes = tuple(said) or ("no layer is large enough to be split; see the reasons under skipped",)
    return TechniqueResult(plan=plan, skipped=dict(sorted(skipped.items())), notes=notes)


def factorize_layer(layer: nn.Conv2d | nn.Linear, rank: int) -> nn.Sequential:
    """Return two layers whose product is the closest of that rank to `layer`'s weights.

    The singular values are shared between the two, so that both learn at one pace.
    """
    import torch
    from torch import nn

    weight = layer.weight.detach()
    u, s, v = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    root = s[:rank].sqrt()
    thin, wide = root[:, None] * v[:rank], u[:, :rank] * root
    has_bias = layer.bias is not None
    first: nn.Conv2d | nn.Linear
    second: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        second = nn.Linear(rank, layer.out_features, bias=has_bias)
    else:
        padding = layer.padding
        first = nn.Conv2d(
            layer.in_channels,
            rank,
            height_width(layer.kernel_size),
            stride=height_width(layer.stride),
            padding=padding if isinstance(padding, str) else height_width(padding),
            dilation=height_width(layer.dilation),
            bias=False,
        )
        second = nn.Conv2d(rank, layer.out_channels, 1, bias=has_bias)
    with torch.no_grad():
        first.weight.copy_(thin.reshape(first.weight.shape))
        second.weight.copy_(wide.reshape(second.weight.shape))
        if second.bias is not None and layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second).to(weight)


def _is_kind(layer: nn.Module) -> TypeGuard[nn.Conv2d | nn.Linear]:
    from torch import nn

    return isinstance(layer, nn.Conv2d | nn.Linear)


def _rank(layer: nn.Conv2d | nn.Linear, fraction: float, multiple: int) -> int:
    full = min(layer.weight.flatten(1).shape)
    return max(multiple, -(-int(full * fraction) // multiple) * multiple)


def _obstacle(
    layer: nn.Conv2d | nn.Linear,
    macs: int,
    rank: int,
    options: Params,
) -> str | None:
    """Say why a layer stays whole, or None. `macs` are its own, for one image."""
    if getattr(layer, "groups", 1) != 1:
        return "a convolution in groups has no rank to lower"
    padding_mode: str = getattr(layer, "padding_mode", "zeros")
    if padding_mode != "zeros":
        return f"its padding is '{padding_mode}'"
    outputs, inputs = layer.weight.flatten(1).shape
    ratio = outputs * inputs / (rank * (outputs + inputs))
    if ratio < options.macs_ratio_min:
        return (
            f"through {rank} channels its multiply-accumulates fall by {ratio:.2f}x, less than "
            f"{options.macs_ratio_min:g}x"
        )
    saved = round(macs * (1 - 1 / ratio))
    if saved < options.macs_saved_min:
        return (
            f"a split saves {saved:,} multiply-accumulates, an operator costs as much as "
            f"{options.macs_saved_min:,}"
        )
    return None
