"""Linear probe: the head fitted on frozen features, a convex problem, then folded into the layer.

Multinomial logistic regression on standardised features, an L2 penalty, L-BFGS from zero: the same
features give the same head. First half of LP-FT (Kumar et al. 2022, arXiv:2202.10054): fine-tuning
that starts from a fitted head does not tear the features apart to suit a random one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fettle.training import inference
from fettle.training.inference import Floats, Ints, Normalise, Pixels

# L2 on standardised weights, per image's mean loss, strongest first: each starts where the one
# before ended. On 3,068 photos 0.1 to 0.3 were the best on validation, 0.003 four points worse.
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
ITERATIONS_MAX = 200
_BATCH_IMAGES = 64
_CONSTANT = 1e-6  # a feature that varies less than this share of the largest says nothing


@dataclass(frozen=True, slots=True)
class Probe:
    """Fitted head for raw features: `weight` [classes, D], `bias` [classes], its L2 `strength`."""

    weight: torch.Tensor
    bias: torch.Tensor
    strength: float


def foldable(head: nn.Module) -> bool:
    """Tell whether a head is one Linear with a bias, which a probe can be folded into."""
    return isinstance(head, nn.Linear) and head.bias is not None


def outputs(head: nn.Module) -> int:
    """Count the classes of a head that is foldable."""
    assert isinstance(head, nn.Linear), "asked of a head that `foldable` refused"
    return head.out_features


def features(
    model: nn.Module, head: nn.Module, pixels: Pixels, normalise: Normalise
) -> Floats | None:
    """Features that reach the head for uint8 [N, C, S, S]: float32 [N, D]; None if not so shaped.

    In eval mode, as they are served: dropout and batch statistics play no part.
    """
    held: list[torch.Tensor] = []

    def keep(_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        held.append(inputs[0].detach().float().cpu())

    handle = head.register_forward_pre_hook(keep)
    try:
        inference.logits(model, pixels, normalise, batch_images=_BATCH_IMAGES)
    finally:
        handle.remove()
    if any(one.ndim != 2 for one in held) or sum(len(one) for one in held) != len(pixels):
        return None
    found: Floats = torch.cat(held).numpy()
    return found


def fit(
    known: Floats, labels: Ints, *, classes: int, strengths: Sequence[float] = STRENGTHS
) -> list[Probe]:
    """Fit a probe for each strength, strongest first, on features float32 [N, D], labels [N]."""
    mean = torch.from_numpy(known.mean(axis=0, dtype=np.float64))
    spread = torch.from_numpy(known.std(axis=0, dtype=np.float64))
    silent = spread <= _CONSTANT * float(spread.max())
    scale = torch.where(silent, 0.0, 1 / spread.clamp_min(1e-30))
    inputs = ((torch.from_numpy(known).double() - mean) * scale).float()
    targets = torch.from_numpy(labels)
    weight = torch.zeros(classes, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    found = []
    for strength in sorted(strengths, reverse=True):
        _descend(inputs, targets, weight, bias, strength)
        raw = weight.detach().double() * scale
        shifted = bias.detach().double() - raw @ mean
        found.append(Probe(raw.float(), shifted.float(), strength))
    return found


def _descend(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    strength: float,
) -> None:
    """Bring weight and bias to the minimum for one strength, in place."""
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=ITERATIONS_MAX,
        tolerance_grad=1e-4,
        tolerance_change=1e-7,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weight.T + bias, targets)
        value = value + strength / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call] # torch leaves it untyped


def answers(probe: Probe, known: Floats) -> Floats:
    """Logits of a probe for features float32 [N, D]: float32 [N, classes]."""
    found: Floats = (torch.from_numpy(known) @ probe.weight.T + probe.bias).numpy()
    return found


def best(probes: Sequence[Probe], known: Floats, labels: Ints) -> Probe:
    """Choose the probe of the least loss on other images; the strongest of equals."""
    return min(probes, key=lambda probe: inference.loss_of(answers(probe, known), labels))


def fold(head: nn.Module, probe: Probe) -> None:
    """Put a probe into the head, in place: the model then gives the probe's logits."""
    assert isinstance(head, nn.Linear), "asked of a head that `foldable` refused"
    with torch.no_grad():
        head.weight.copy_(probe.weight)
        head.bias.copy_(probe.bias)
