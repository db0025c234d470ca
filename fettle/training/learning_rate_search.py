"""Learning-rate search: short trainings at a few rates from one start, judged on other images.

A whole training's shape in miniature (warm-up, cosine to zero), because a rate is good or bad at
its end: at a constant rate the least one always looks best after a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from fettle.errors import ModelError

RATES = (3e-4, 1e-3, 3e-3)  # AdamW; of a network from scratch the best was 2e-3 to 8e-3 so far
# All trials together take this share of the training's steps, and each has enough to move.
STEPS_FRACTION = 0.25
STEPS_MIN, STEPS_MAX = 24, 120
# Short trials favour small rates (short-horizon bias, Wu et al. 2018, arXiv:1803.02021): the
# largest rate wins whose loss is at most this share above the least. On photos of clothes at 64 px
# 50 steps left 3e-4 at 0.768, 1e-3 at 0.772 and 2e-3 at 0.851; whole trainings of 3e-4 and 1e-3
# ended at 85.0 % and 87.7 % of validation.
LOSS_SLACK = 0.1


@dataclass(frozen=True, slots=True)
class RateTrial:
    """One short training: its rate, and its loss on the choice images (infinite: it diverged)."""

    learning_rate: float
    loss: float


def trial_steps(whole_steps: int, rates: int = len(RATES)) -> int:
    """Count the steps of each trial for a training of `whole_steps`."""
    return max(STEPS_MIN, min(STEPS_MAX, round(STEPS_FRACTION * whole_steps / rates)))


def search(
    model: nn.Module, train: Callable[[float], float], rates: Sequence[float] = RATES
) -> list[RateTrial]:
    """Try each rate from the same weights; `train` trains `model` in place and returns its loss.

    The model has its first weights again afterwards. Raises ModelError when every rate diverges.
    """
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    trials = []
    for rate in rates:
        try:
            loss = train(rate)
        except ModelError:  # the loop's own word for a loss that is not finite
            loss = math.inf
        trials.append(RateTrial(rate, loss))
        model.load_state_dict(start)
    if not any(math.isfinite(trial.loss) for trial in trials):
        raise ModelError(
            "training broke down at every learning rate tried",
            got=", ".join(f"{rate:g}" for rate in rates),
            rule="finetune.learning_rate: auto tries these",
            fix="look at preprocess.mean and preprocess.std and at the model's own weights, or set "
            "finetune.learning_rate to a smaller number",
        )
    return trials


def best(trials: Sequence[RateTrial]) -> float:
    """Choose the largest rate whose loss is the least, or nearly."""
    limit = (1 + LOSS_SLACK) * min(trial.loss for trial in trials)
    return max(trial.learning_rate for trial in trials if trial.loss <= limit)
