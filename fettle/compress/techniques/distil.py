"""Knowledge distillation: train the compressed model towards the unpruned float model.

Hinton, Vinyals, Dean 2015 (arXiv:1503.02531): the student learns the teacher's softened answers
beside the labels. The teacher answers on the same augmented images as the student, so a small
data set teaches far more than its labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fettle.compress.technique import Capabilities, CompressionContext, TechniqueResult
from fettle.params_schema import Fraction, Positive, Strict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=False,
    shrinks_macs=False,
    keeps_shapes=True,
)


class Params(Strict):
    """How long and how softly; `alpha` is the teacher's share of the loss, the labels have the
    rest.
    """

    epochs: Positive = 10
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Train `model` in place; the plan stays as it is."""
    context.fit(
        model,
        phase="distil",
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        temperature=options.temperature,
        alpha=options.alpha,
    )
    return TechniqueResult(plan=plan)


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float
) -> Tensor:
    """Distillation loss: mix the softened divergence from the teacher with the cross-entropy on
    the labels.

    logits, teacher_logits: [batch, classes]; labels: [batch]. alpha * T^2 * KL(teacher || student)
    + (1 - alpha) * CE; the T^2 keeps the two gradients of one size (section 2 of the paper).
    """
    from torch.nn import functional as F

    soft = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    mixed = alpha * temperature**2 * soft
    return mixed + (1 - alpha) * F.cross_entropy(logits, labels) if alpha < 1 else mixed
