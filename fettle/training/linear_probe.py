"""Linear probe: the head fitted on frozen features, a convex problem, then folded into the layer.

Multinomial logistic regression on standardised features, an L2 penalty, L-BFGS from zero: the same
features give the same head. First half of LP-FT (Kumar et al. 2022, arXiv:2202.10054): fine-tuning
that starts from a fitted head does not tear the features apart to suit a random one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fettle import lazy_array
from fettle.lazy_array import RowArray
from fettle.training import inference
from fettle.training.inference import Floats, Ints, Normalise

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
    model: nn.Module,
    head: nn.Module,
    pixels: RowArray[np.uint8],
    normalise: Normalise,
    *,
    scratch: Path | None = None,
) -> RowArray[np.float32] | None:
    """Features that reach the head for uint8 [N, C, S, S]: float32 [N, D]; None if not so shaped.

    In eval mode, as they are served: dropout and batch statistics play no part. Many lie in a file
    in `scratch`.
    """
    parts = _feature_batches(model, head, pixels, normalise)
    try:
        first = next(parts)
        return lazy_array.gather(
            chain([first], parts),
            shape=(len(pixels), first.shape[1]),
            dtype=np.float32,
            folder=scratch,
            what=f"the features of {len(pixels):,} images",
        )
    except _OddFeaturesError:
        return None


class _OddFeaturesError(Exception):
    """The head is not given one row of features an image."""


def _feature_batches(
    model: nn.Module, head: nn.Module, pixels: RowArray[np.uint8], normalise: Normalise
) -> Iterator[Floats]:
    held: list[torch.Tensor] = []

    def keep(_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        held.append(inputs[0].detach().float().cpu())

    handle = head.register_forward_pre_hook(keep)
    try:
        for answers in inference.logit_batches(
            model, pixels, normalise, batch_images=_BATCH_IMAGES
        ):
            if any(one.ndim != 2 for one in held) or sum(map(len, held)) != len(answers):
                raise _OddFeaturesError
            yield torch.cat(held).numpy()
            held.clear()
    finally:
        handle.remove()


def fit(
    known: RowArray[np.float32],
    labels: Ints,
    *,
    classes: int,
    strengths: Sequence[float] = STRENGTHS,
    scratch: Path | None = None,
) -> list[Probe]:
    """Fit a probe for each strength, strongest first, on features float32 [N, D], labels [N].

    The loss is summed over chunks of the rows, all of them, so that many need not be in memory.
    """
    mean, spread = _moments(known)
    silent = spread <= _CONSTANT * float(spread.max())
    scale = torch.where(silent, 0.0, 1 / spread.clamp_min(1e-30))
    inputs = lazy_array.gather(
        (
            ((torch.from_numpy(part).double() - mean) * scale).float().numpy()
            for part in lazy_array.read_ahead(known, lazy_array.chunks(known))
        ),
        shape=known.shape,
        dtype=np.float32,
        folder=scratch,
        what="the standardised features",
    )
    targets = torch.from_numpy(labels)
    weight = torch.zeros(classes, known.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    found = []
    for strength in sorted(strengths, reverse=True):
        _descend(inputs, targets, weight, bias, strength)
        raw = weight.detach().double() * scale
        shifted = bias.detach().double() - raw @ mean
        found.append(Probe(raw.float(), shifted.float(), strength))
    return found


def _moments(known: RowArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each feature, in double precision: [D] each."""
    slices = lazy_array.chunks(known)
    if len(slices) == 1:
        whole = known[:]
        mean, spread = whole.mean(axis=0, dtype=np.float64), whole.std(axis=0, dtype=np.float64)
        return torch.from_numpy(mean), torch.from_numpy(spread)
    mean = np.zeros(known.shape[1])
    for part in lazy_array.read_ahead(known, slices):
        mean += part.sum(axis=0, dtype=np.float64) / len(known)
    variance = np.zeros(known.shape[1])
    for part in lazy_array.read_ahead(known, slices):
        variance += np.square(part - mean).sum(axis=0) / len(known)
    return torch.from_numpy(mean), torch.from_numpy(np.sqrt(variance))


def _descend(
    inputs: RowArray[np.float32],
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
    slices = lazy_array.chunks(inputs)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = strength / 2 * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        total = total.detach()
        parts = lazy_array.read_ahead(inputs, slices)
        for rows, part in zip(slices, parts, strict=True):
            logits = torch.from_numpy(part) @ weight.T + bias
            share = len(part) / len(targets)
            value = share * F.cross_entropy(logits, targets[rows])
            value.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            total = total + value.detach()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call] # torch leaves it untyped


def answers(probe: Probe, known: RowArray[np.float32]) -> Floats:
    """Logits of a probe for features float32 [N, D]: float32 [N, classes]."""
    parts = lazy_array.read_ahead(known, lazy_array.chunks(known))
    return np.concatenate(
        [(torch.from_numpy(part) @ probe.weight.T + probe.bias).numpy() for part in parts]
    )


def best(probes: Sequence[Probe], known: RowArray[np.float32], labels: Ints) -> Probe:
    """Choose the probe of the least loss on other images; the strongest of equals."""
    return min(probes, key=lambda probe: inference.loss_of(answers(probe, known), labels))


def fold(head: nn.Module, probe: Probe) -> None:
    """Put a probe into the head, in place: the model then gives the probe's logits."""
    assert isinstance(head, nn.Linear), "asked of a head that `foldable` refused"
    with torch.no_grad():
        head.weight.copy_(probe.weight)
        head.bias.copy_(probe.bias)
