"""Forward hooks: run a torch module once to learn of it, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle


def forward(model: nn.Module, example: Tensor, hooks: Iterable[RemovableHandle]) -> None:
    """Give `example` [1, C, S, S] to `model` in eval mode, without gradients; then take the hooks,
    which were set on its modules, off.
    """
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
