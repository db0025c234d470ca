"""Input resolution of a torch module: it takes its images smaller than they are given to it.

While a recipe is trained and searched, the teacher and the compressed model are given the same
images; the resizing is a hook of the module, no layer, so that names, weights and plans stay as
they are. It is removed from what is exported, which takes the smaller images themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class InputResizing:
    """Forward pre-hook that scales square images [N, C, S, S] down to a side, with antialiasing."""

    def __init__(self, size_px: int) -> None:
        self.size_px = size_px

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Scale the first input; the others stay."""
        return scale(inputs[0], self.size_px), *inputs[1:]


def scale(images: Tensor, size_px: int) -> Tensor:
    """Scale images [N, C, S, S] to side `size_px`; those that have it are handed back."""
    from torch.nn import functional as F

    if images.shape[-1] == size_px:
        return images
    return F.interpolate(
        images, size=(size_px, size_px), mode="bilinear", align_corners=False, antialias=True
    )


def install(model: nn.Module, size_px: int) -> None:
    """Let `model` take its images at side `size_px` from now on, in place."""
    remove(model)
    model.register_forward_pre_hook(InputResizing(size_px))


def remove(model: nn.Module) -> None:
    """Let `model` take its images as they are given, in place."""
    for key, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, InputResizing):
            del model._forward_pre_hooks[key]


def size_of(model: nn.Module) -> int | None:
    """Return the side that `model` scales its images to; None: it takes them as they are."""
    for hook in model._forward_pre_hooks.values():
        if isinstance(hook, InputResizing):
            return hook.size_px
    return None
