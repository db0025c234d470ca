"""Student network: a smaller one of another family, trained in the model's place to its answers.

The other way to be small: not to cut a large network but never to have had it, with its knowledge
(Hinton, Vinyals, Dean 2015, arXiv:1503.02531). `family` is a file in fettle/models/families and
`options` are that family's; the plan then starts from that network, and later steps of the recipe
act on it.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fettle.compress import compression_plan, layer_costs
from fettle.compress.technique import (
    Capabilities,
    CompressionContext,
    SensitivityReport,
    TechniqueResult,
)
from fettle.params_schema import Fraction, Positive, Strict
from fettle.params_schema import Options as FamilyOptions

if TYPE_CHECKING:
    from torch import nn

    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=True,
    shrinks_macs=True,
    keeps_shapes=False,
)

# Plain networks of few operators: on small images those are fast. On 718 digits of 32 px, against
# EfficientNet-Lite0 (ADR 0029): 60x fewer parameters, 15x fewer MACs and 14x less predicted
# latency at width 12; 135x, 32x and 18x at 8.
PROPOSED = (
    {"width": 32, "depth": 1, "blocks": 4},
    {"width": 12, "depth": 1, "blocks": 4},
    {"width": 8, "depth": 1, "blocks": 4},
)
# Width 8 on digits, points lost on test by epochs and rate (ADR 0033): 50 at 4e-3 0.3, 150 at 4e-3
# -0.6, 150 at 8e-3 -1.1, 250 at 8e-3 -0.8. An epoch is a sixteenth of the teacher's.
PROPOSED_EPOCHS = 150
# On photos of 96 px, over EfficientNet-Lite0: a stem of stride 1 left width 8 at 8.1x and 10 points
# below its teacher; of stride 4, width 24 is at 10x and loses none (ADR 0031).
SEEN_PX = 32


class Params(Strict):
    """Which network, and how long it learns; `alpha` is the teacher's share of the loss."""

    family: str = "small_cnn"
    options: FamilyOptions = Field(default_factory=lambda: {"width": 8, "depth": 1, "blocks": 3})
    epochs: Positive = 20
    learning_rate: Annotated[float, Field(gt=0)] = 8e-3
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9


def proposals(sensitivity: SensitivityReport, *, multiple: int, seed: int) -> list[FamilyOptions]:
    """Propose small_cnn in three sizes, those of half the model's parameters or less.

    Only of a model that nothing was done to: a student starts anew, whatever came before it.
    """
    if not sensitivity.as_built:
        return []
    del multiple, seed
    parameters = sum(layer.params for layer in sensitivity.layers)
    stem = {"stem_stride": stride} if (stride := _stem_stride(sensitivity.size_px)) > 1 else {}
    return [
        {"family": "small_cnn", "options": {**options, **stem}, "epochs": PROPOSED_EPOCHS}
        for options in PROPOSED
        if _parameters(**options) * 2 < parameters
    ]


def _stem_stride(size_px: int) -> int:
    """Choose the stem's stride by which the blocks see about 32 px: 1, 2 from 46 px, 4 from 91."""
    return (1, 2, 4)[min(2, max(0, round(math.log2(size_px / SEEN_PX))))]


def _parameters(*, width: int, depth: int, blocks: int) -> int:
    """Count the weights of small_cnn's convolutions, which have nearly all of them."""
    total, inside = 0, 1
    for block in range(blocks):
        outside = width * 2**block
        total += 9 * outside * (inside + (depth - 1) * outside)
        inside = outside
    return total


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Build the student, train it; return it with the plan that starts from it.

    What the plan said of the old network is void. Raises ParamsError for an unknown family or
    wrong options, as finetune does.
    """
    import torch

    del plan
    with torch.random.fork_rng():
        torch.manual_seed(context.seed)
        student = context.build(options.family, options.options)
    student = student.to(context.example.device).eval()
    before, after = (
        layer_costs.totals(layer_costs.count_layers(network, context.example))
        for network in (model, student)
    )
    context.fit(
        student,
        phase="student",
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        temperature=options.temperature,
        alpha=options.alpha,
    )
    start = compression_plan.Architecture(options.family, copy.deepcopy(options.options))
    note = f"{options.family}: {after[0]:,} parameters in place of {before[0]:,}"
    return TechniqueResult(
        plan=compression_plan.CompressionPlan(architecture=start), model=student, notes=(note,)
    )
