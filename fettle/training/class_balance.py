"""Class imbalance, met in one of three ways: loss weights, a sampler, or offsets after training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fettle.errors import ModelError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# Strengths of the prior correction tried on validation; 0 is none, 1 the full correction.
_STRENGTHS = tuple(round(0.1 * step, 1) for step in range(16))


def class_weights(labels: Ints, classes: int) -> Floats:
    """Weigh each class by the inverse of its frequency, scaled to a mean of 1 over the images.

    A class without images gets weight 0. labels: [N]; returns [classes].
    """
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    present = counts > 0
    weights = np.zeros(classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return weights.astype(np.float32)


def balanced_order(labels: Ints, classes: int, generator: torch.Generator) -> Ints:
    """Draw N training indices with replacement, every class equally often on average."""
    each = torch.from_numpy(class_weights(labels, classes)[labels]).double()
    order: Ints = torch.multinomial(
        each, len(labels), replacement=True, generator=generator
    ).numpy()
    return order


def offsets(logits: Floats, labels: Ints, train_labels: Ints) -> Floats:
    """Find per-class logit offsets [classes] that raise the mean recall on validation.

    They are -strength * log(share of the class in training) (logit adjustment, arXiv:2007.07314),
    with the strength chosen on validation: one number, so that few images can carry it. The
    weakest of equally good strengths wins.
    """
    classes = logits.shape[1]
    counts = np.bincount(train_labels, minlength=classes)
    log_share = np.log(np.maximum(counts, 1) / counts.sum())
    log_share -= log_share.mean()  # leaves the softmax alone and keeps the bias small

    def mean_recall(strength: float) -> float:
        guess = (logits - strength * log_share).argmax(axis=1)
        return float(np.mean([(guess[labels == k] == k).mean() for k in np.unique(labels)]))

    best = max(_STRENGTHS, key=lambda strength: (round(mean_recall(strength), 9), -strength))
    return np.asarray(0.0 - best * log_share, dtype=np.float32)  # 0.0 -: no negative zeros


def check_offsets_fold(head: nn.Module, answer: Callable[[], Floats]) -> None:
    """Try on a head whether `fold` moves each logit of `answer` [n, classes] by its own amount.

    Leaves the head as it was. Raises ModelError as `fold` does, or when the logits do not follow.
    """
    before = answer()
    amounts = np.linspace(-1, 1, before.shape[1], dtype=np.float32)
    kept = {name: value.detach().clone() for name, value in head.state_dict().items()}
    try:
        fold_offsets(head, amounts)
        after = answer()
    finally:
        head.load_state_dict(kept)
    limit = 1e-3 * max(1.0, float(np.abs(before).max()))
    if np.abs(after - before - amounts).max() > limit:
        raise ModelError(
            "finetune.imbalance: thresholds cannot be folded into this model",
            got=f"logits that do not follow the bias of {head}",
            rule="a constant added to that bias must come out in the logits unchanged",
            fix="end the network with a layer that nothing follows and whose bias is its own, or "
            "set finetune.imbalance to weights or sampler",
        )


def fold_offsets(head: nn.Module, amounts: Floats) -> None:
    """Add offsets [classes] to the head's bias, in place, so that the exported model has them.

    Raises ModelError when the head has no bias of that length.
    """
    bias = getattr(head, "bias", None)
    if not isinstance(bias, torch.Tensor) or bias.shape != amounts.shape:
        raise ModelError(
            "finetune.imbalance: thresholds needs a head with one bias a class",
            got=f"{head}" if bias is None else f"a bias of {list(bias.shape)}",
            rule="the offsets are folded into that bias",
            fix="give the last layer a bias, or set finetune.imbalance to weights or sampler",
        )
    with torch.no_grad():
        bias += torch.from_numpy(amounts).to(bias.device)
