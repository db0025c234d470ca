"""Input resolution: the compressed model takes smaller images, its teacher keeps its own.

Multiply-accumulates fall with the square of the side, and every weight stays: on photos of clothes
EfficientNet-Lite0 went from 128 to 96 px (1.8 times fewer) for 3.8 points before any training, and
0.3 after three epochs of distillation from itself at 128 px. Compound scaling (Tan, Le 2019, arXiv:
1905.11946) buys accuracy the same way, at the other end. Only what runs at any size can be scaled:
a network that flattens its maps, or has positions learnt for one size, does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fettle.compress import batchnorm_statistics, forward_hooks, input_resizing
from fettle.compress.technique import (
    Capabilities,
    CompressionContext,
    SensitivityReport,
    TechniqueResult,
    recover,
)
from fettle.errors import ModelError
from fettle.params_schema import Fraction, Options, Strict

if TYPE_CHECKING:
    from torch import nn

    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=False,
    shrinks_macs=True,
    keeps_shapes=True,
    shrinks_images=True,
)

PROPOSED_SHARES = (0.75, 0.625, 0.5)  # of the present side
PROPOSED_MIN_PX = 16
MULTIPLE_PX, MULTIPLE_SMALL_PX = 8, 2  # of sides from 32 px, and below: maps stay even when halved


class Params(Strict):
    """Side of the smaller images (null: three quarters of the present one); how accuracy is
    recovered.
    """

    size_px: Annotated[int, Field(ge=4, le=1024)] | None = None
    bn_reestimate: bool = True
    recover_epochs: Annotated[int, Field(ge=0)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9


def proposals(sensitivity: SensitivityReport, *, multiple: int, seed: int) -> list[Options]:
    """Propose three quarters, five eighths and half of the side, not below 16 px."""
    del multiple, seed  # no channel is cut, nothing is drawn
    sides = dict.fromkeys(rounded_side(sensitivity.size_px * share) for share in PROPOSED_SHARES)
    return [{"size_px": side} for side in sides if PROPOSED_MIN_PX <= side < sensitivity.size_px]


def rounded_side(side_px: float) -> int:
    """Round a side to the nearest multiple of eight, below 32 px of two."""
    multiple = MULTIPLE_PX if side_px >= 32 else MULTIPLE_SMALL_PX
    return int(side_px / multiple + 0.5) * multiple


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Let `model` take smaller images and train it; return the plan.

    Raises ModelError for a side that is not smaller, or at which the model does not run.
    """
    before = input_resizing.size_of(model) or int(context.example.shape[-1])
    side = options.size_px or rounded_side(before * PROPOSED_SHARES[0])
    if side >= before:
        raise ModelError(
            "resolution does not make the images smaller",
            got=f"{side} px",
            rule=f"the model takes images of {before} px",
            fix=f"set size_px of the step to less than {before}, or take the step out",
        )
    input_resizing.install(model, side)
    forward_hooks.check_runs(
        model,
        context.example,
        what=f"the model does not run on images of {side} px",
        rule="a flattened map, or positions learnt for one size, do not follow the image",
        fix="take `resolution` out of compress.recipe, or set another size_px",
        refusals=(RuntimeError, ValueError, AssertionError),
    )
    if options.bn_reestimate:
        batchnorm_statistics.reestimate(
            model, context.batches(), images_max=batchnorm_statistics.IMAGES_MAX
        )
    recover(model, options, context, phase="resolution")
    note = f"images of {side} px, before {before}"
    return TechniqueResult(plan=replace(plan, input_size_px=side), notes=(note,))
