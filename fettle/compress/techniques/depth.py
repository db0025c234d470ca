"""Depth pruning: take out whole blocks, the least sensitive first, and merge what then meets.

On small images a network costs by the operator, not by the multiply-accumulate: at 32 px, 8x fewer
MACs bought 3.2x here, and int8 on top nothing. Fewer operators is the way down. A block counts as
missed by what the loss on training images says when it is bypassed (Fu et al. 2022, arXiv:
2206.00843, learn the choice with the weights; measuring it takes seconds). Training wins back what
is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fettle.compress import (
    batchnorm_statistics,
    convolution_merging,
    removable_blocks,
    sensitivity_analysis,
)
from fettle.compress.technique import (
    Capabilities,
    CompressionContext,
    SensitivityReport,
    TechniqueResult,
    recover,
)
from fettle.params_schema import Fraction, Options, Positive, Strict

if TYPE_CHECKING:
    from torch import nn

    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=True,
    shrinks_macs=True,
    keeps_shapes=False,
)


class Params(Strict):
    """Depth options: how many blocks go, or which; how accuracy is recovered.

    `blocks` names them and overrides `remove`; a model with fewer removable blocks loses them all.
    `merge` joins two convolutions that meet with nothing between them.
    """

    remove: Positive = 1
    blocks: list[str] | None = None
    merge: bool = True
    recover_epochs: Annotated[int, Field(ge=0)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9


def proposals(sensitivity: SensitivityReport, *, multiple: int, seed: int) -> list[Options]:
    """Propose to take out the 1, 2, 4, … and all removable blocks that are least missed.

    By name, so that trying a proposal measures nothing again. What two blocks do for one another is
    seen at the next move, whose sensitivity report is of the model without the first.
    """
    del multiple, seed  # no channel is cut, nothing is drawn
    ranked = [
        block.name for block in sorted(sensitivity.blocks, key=lambda block: block.loss_increase)
    ]
    most = len(ranked)
    counts = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [{"blocks": ranked[:count]} for count in (*counts, *([most] if most else []))]


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Take blocks out of `model` in place and train it; return the plan.

    Raises ModelError for a block that is not there.
    """
    removable = removable_blocks.find_blocks(model, context.example, context.protected)
    if options.blocks is not None:
        removable_blocks.check_block_names(options.blocks, removable)
        gone = list(options.blocks)
    else:
        gone = sensitivity_analysis.least_sensitive_blocks(
            model, context, removable, count=options.remove
        )
    plan = removable_blocks.remove_blocks(model, plan, gone)
    batchnorm_statistics.reestimate(
        model, context.batches(), images_max=batchnorm_statistics.IMAGES_MAX
    )
    merged: list[str] = []
    if options.merge:
        plan, merged = convolution_merging.merge(model, plan, context.example)
    if gone or merged:
        recover(model, options, context, phase="depth")
    taken = f"took out {', '.join(gone)}" if gone else "no block could be taken out"
    return TechniqueResult(plan=plan, notes=(taken, *merged))
