"""Score the channels of a group: which may go with the least loss.

Torch-Pruning's group importances, and a seeded random baseline. Scores compare within one group;
`normalised` scores (mean 1) compare across groups too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, assert_never

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fettle.compress._groups import Group

Importance = Literal["l1", "l2", "taylor", "bn_scale", "random"]


def score(group: Group, importance: Importance, *, generator: torch.Generator) -> Tensor | None:
    """Return scores [width], higher is worth more; None when the group has nothing to read.

    l1, l2: sum of |w|^p over all weights of the group (Li et al. 2017, arXiv:1608.08710);
    taylor: |w * dL/dw| (Molchanov et al. 2019, arXiv:1906.10771), needs `accumulate_gradients`;
    bn_scale: |gamma| (Liu et al. 2017, arXiv:1708.06519); random: the honest baseline.
    """
    import torch
    from torch_pruning.pruner import importance as tp

    estimator: Any  # Any: Torch-Pruning carries no types
    match importance:
        case "l1":
            estimator = tp.GroupMagnitudeImportance(p=1, normalizer=None)
        case "l2":
            estimator = tp.GroupMagnitudeImportance(p=2, normalizer=None)
        case "taylor":
            estimator = tp.GroupTaylorImportance(normalizer=None)
        case "bn_scale":
            estimator = tp.BNScaleImportance(normalizer=None)
        case "random":
            return torch.rand(group.width, generator=generator)
        case _:
            assert_never(importance)
    found: Tensor | None = estimator(group.traced)
    return found


def normalised(scores: Tensor) -> Tensor:
    """Scale scores to mean 1; all-zero scores stay zero."""
    mean = scores.mean()
    return scores / mean if mean > 0 else scores


def accumulate_gradients(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, images_max: int
) -> None:
    """Fill `.grad` with the summed cross-entropy gradient over the first `images_max` images."""
    import torch
    from torch.nn import functional as F

    model.eval()
    model.zero_grad(set_to_none=True)
    seen = 0
    with torch.enable_grad():
        for images, labels in batches:
            F.cross_entropy(model(images), labels, reduction="sum").backward()  # type: ignore[no-untyped-call] # torch
            seen += len(labels)
            if seen >= images_max:
                break
