"""Inference of a module over a split, batch by batch: pixels in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from fettle import lazy_array
from fettle.lazy_array import RowArray

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Normalise = Callable[[Pixels], Floats]

# A GPU wants many at once. On a CPU 64 take 0.6 to 0.7 of the time of 256, with the same answers to
# the bit, and a quarter of the memory, of which the allocator keeps about twice as much for itself.
BATCH_IMAGES_CPU, BATCH_IMAGES_GPU = 64, 256


def device() -> torch.device:
    """Take CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(batch: Floats, where: torch.device) -> torch.Tensor:
    """Move a normalised batch [N, C, S, S]; channels_last, which trains 1.7x faster on CPU."""
    tensor = torch.from_numpy(batch).to(where)
    return tensor.to(memory_format=torch.channels_last)


def logits(
    model: nn.Module,
    pixels: RowArray[np.uint8],
    normalise: Normalise,
    *,
    batch_images: int | None = None,
) -> Floats:
    """Answer every image of `pixels` uint8 [N, C, S, S]: float32 [N, classes].

    Runs in eval mode in full float32 and leaves the model in the mode it was in.
    """
    if batch_images is None:
        on_cpu = next(model.parameters()).device.type == "cpu"
        batch_images = BATCH_IMAGES_CPU if on_cpu else BATCH_IMAGES_GPU
    return np.concatenate(list(logit_batches(model, pixels, normalise, batch_images=batch_images)))


def logit_batches(
    model: nn.Module, pixels: RowArray[np.uint8], normalise: Normalise, *, batch_images: int
) -> Iterator[Floats]:
    """Answer the images batch by batch, as `logits` does: float32 [n, classes] each."""
    where = next(model.parameters()).device
    was_training = model.training
    model.eval()
    starts = range(0, len(pixels), batch_images)
    batches = (slice(start, start + batch_images) for start in starts)
    try:
        for part in lazy_array.read_ahead(pixels, batches):
            with torch.inference_mode():  # not over the yield: it would be the caller's too
                answers = model(to_device(normalise(part), where)).float().cpu().numpy()
            yield answers
    finally:
        model.train(was_training)


def loss_of(answers: Floats, labels: Ints) -> float:
    """Return the mean cross-entropy in nats, without smoothing or weights."""
    return float(F.cross_entropy(torch.from_numpy(answers), torch.from_numpy(labels)))


def accuracy_of(answers: Floats, labels: Ints) -> float:
    """Return the share of right answers."""
    return float((answers.argmax(axis=1) == labels).mean())
