"""BatchNorm statistics, re-estimated after channels are gone: saves minutes of training.

After a cut the running mean and variance describe inputs that no longer come; accuracy falls to
chance for that reason alone. A forward pass over training images repairs them without a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

# Statistics settle earlier than a gate's scores do (see prune.GATE_IMAGES_MAX); felt right.
IMAGES_MAX = 2048


def are_fresh(model: nn.Module) -> bool:
    """Tell whether BatchNorm statistics are all as made, mean 0 and variance 1; no layer: False."""
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    return bool(norms) and all(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all())
        for norm in norms
    )


def reestimate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, images_max: int
) -> int:
    """Set each BatchNorm's running statistics to the plain average over batches, in place.

    Reads at most about `images_max` images (whole batches); a batch of one image is passed over,
    for it has no variance. Returns the images read; 0 leaves the model as it was.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.eval()
    seen = 0
    try:
        with torch.no_grad():
            for images, _ in batches if norms else ():
                if len(images) < 2:
                    continue
                if seen == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # torch: None is the cumulative average
                        norm.train()
                model(images)
                seen += len(images)
                if seen >= images_max:
                    break
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)
    return seen
