"""Weight averaging: an exponential moving average (EMA) of the weights over the last steps.

BatchNorm's statistics are averaged along: they are averages of the same images themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

# The average spans this share of the training's steps: about the last epoch of eight. A short
# training has fewer steps to forget its start in, so the average grows into its span.
SPAN_FRACTION = 0.12


class WeightAverage:
    """The running average of a model's state dict; `tensors` are its values."""

    def __init__(self, model: nn.Module, *, steps: int) -> None:
        self.decay = 1 - 1 / max(1.0, SPAN_FRACTION * steps)
        self.taken = 0
        self.tensors = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def resume(self, tensors: Mapping[str, torch.Tensor], taken: int) -> None:
        """Go on from an average that was kept, of so many steps."""
        self.taken = taken
        for name, held in self.tensors.items():
            held.copy_(tensors[name])

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step."""
        self.taken += 1
        decay = min(self.decay, self.taken / (self.taken + 9))
        for name, value in model.state_dict().items():
            held = self.tensors[name]
            if held.is_floating_point():
                held.lerp_(value, 1 - decay)
            else:
                held.copy_(value)
