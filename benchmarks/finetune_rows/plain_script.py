"""A plain fine-tuning script of 60 lines, as one would write it by hand: the rival of our default.

Logistic regression on the frozen backbone, then 8 epochs of the whole network by AdamW with a
cosine rate, batch 32, random resized crops and flips, averaged weights. It knows nothing of
fettle's training: only the network itself, and the same pixels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
EPOCHS, BATCH, CROP_MIN = 8, 32, 0.35
RATES = (3e-4, 1e-3, 3e-3)


@dataclass(frozen=True, slots=True)
class Photos:
    """Normalised images float32 [N, 3, S, S] and labels [N]."""

    inputs: torch.Tensor
    labels: Ints


def answers(model: nn.Module, inputs: torch.Tensor) -> Floats:
    """Answer all images: logits, or features of a body."""
    model.eval()
    with torch.inference_mode():
        parts = [model(part).float() for part in torch.split(inputs, 128)]
    found: Floats = torch.cat(parts).numpy()
    return found


def probe(body: nn.Module, head: nn.Linear, train: Photos) -> None:
    """Fit the head by logistic regression on standardised features, in place."""
    known = answers(body, train.inputs)
    mean, spread = known.mean(axis=0), known.std(axis=0) + 1e-6
    held = np.arange(len(known)) % 10 == 0
    found = {}
    for strength in (1e-3, 1e-2, 1e-1):
        tried = LogisticRegression(C=strength, max_iter=300)
        tried.fit((known[~held] - mean) / spread, train.labels[~held])
        found[strength] = tried.score((known[held] - mean) / spread, train.labels[held])
    best = max(found, key=lambda strength: (found[strength], -strength))
    fitted = LogisticRegression(C=best, max_iter=300).fit((known - mean) / spread, train.labels)
    coefficients = (
        fitted.coef_ if len(fitted.coef_) > 1 else np.vstack([-fitted.coef_, fitted.coef_])
    )
    offset = fitted.intercept_ if len(fitted.coef_) > 1 else np.array([-1, 1]) * fitted.intercept_
    weight = coefficients / spread
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(offset - weight @ mean))


def train(model: nn.Module, photos: Photos, *, rate: float, seed: int) -> nn.Module:
    """Train the whole network; return the average of its weights over the last two epochs."""
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    steps = -(-len(photos.labels) // BATCH) * EPOCHS
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    average, taken = copy.deepcopy(model), 0
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.split(torch.randperm(len(photos.labels), generator=draw), BATCH):
            batch = crop_and_flip(photos.inputs[rows], draw)
            labels = torch.from_numpy(photos.labels[rows.numpy()])
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels, label_smoothing=0.05).backward()  # type: ignore[no-untyped-call] # torch
            optimizer.step()
            schedule.step()
            if epoch >= EPOCHS - 2:
                taken += 1
                for held, value in zip(
                    average.state_dict().values(), model.state_dict().values(), strict=True
                ):
                    held.copy_(held + (value - held) / taken)
    return average


def crop_and_flip(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """Random resized crops of 35 % of the area and more, and flips half of the time."""
    count = len(images)
    side = (1 - torch.rand(count, generator=draw) * (1 - CROP_MIN)).sqrt()
    mirror = torch.where(torch.rand(count, generator=draw) < 0.5, -1.0, 1.0)
    moves = (torch.rand(2, count, generator=draw) * 2 - 1) * (1 - side)
    none = torch.zeros(count)
    grid = torch.stack([side * mirror, none, moves[0], none, side, moves[1]], dim=1)
    where = F.affine_grid(grid.view(count, 2, 3), list(images.shape), align_corners=False)
    found = F.grid_sample(images, where, align_corners=False, padding_mode="border")
    return found.contiguous(memory_format=torch.channels_last)
