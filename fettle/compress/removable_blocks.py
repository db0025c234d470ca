"""Removable blocks (depth pruning): find those that can be taken out whole, take them out.

A block is a module with layers inside whose output has the shape of its input, and which runs once:
a residual block, or a convolution with its normalisation where neither width nor side changes. Its
place is taken by nothing at all (nn.Identity). Found on any model by one forward pass, so that a
family need not name them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fettle.compress import compression_plan, forward_hooks
from fettle.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fettle.compress.compression_plan import CompressionPlan


def find_blocks(model: nn.Module, example: Tensor, protected: Mapping[str, str]) -> list[str]:
    """Return the names of the removable blocks of `model`, in its order.

    Of nested ones a block is the outermost, save that a chain (nn.Sequential) of blocks is no block
    itself. `example` is [1, C, S, S]; a block that holds a `protected` layer stays.
    """
    same = _shape_keepers(model, example)
    blocks: list[str] = []
    for name, child in model.named_children():
        blocks += _within(name, child, same)
    return [
        name
        for name in blocks
        if not any(layer == name or layer.startswith(f"{name}.") for layer in protected)
    ]


def _within(name: str, module: nn.Module, same: set[str]) -> list[str]:
    from torch import nn

    children = list(module.named_children())
    inner: list[str] = []
    if name not in same or isinstance(module, nn.Sequential):
        for child_name, child in children:
            inner += _within(f"{name}.{child_name}", child, same)
    is_block = name in same and children and any(True for _ in module.parameters())
    return inner or ([name] if is_block else [])


def _shape_keepers(model: nn.Module, example: Tensor) -> set[str]:
    """Name the modules that ran once, on one image, and gave back its shape."""
    import torch

    runs: Counter[str] = Counter()
    same: set[str] = set()

    def note(name: str, inputs: tuple[object, ...], output: object) -> None:
        runs[name] += 1
        shapes = [value.shape for value in (*inputs, output) if isinstance(value, torch.Tensor)]
        if len(shapes) == 2 and shapes[0] == shapes[1] and len(shapes[0]) == 4:
            same.add(name)

    hooks = [
        module.register_forward_hook(lambda _m, i, o, name=name: note(name, i, o))
        for name, module in model.named_modules()
    ]
    forward_hooks.forward(model, example, hooks)
    return {name for name in same if runs[name] == 1}


def remove_blocks(model: nn.Module, plan: CompressionPlan, names: Sequence[str]) -> CompressionPlan:
    """Remove blocks in place, an Identity for each; return the plan that does the same."""
    from torch import nn

    for name in names:
        plan = compression_plan.replace_submodule(model, plan, name, nn.Identity())
    return plan


def check_block_names(asked: Sequence[str], blocks: Sequence[str]) -> None:
    """Raise ModelError for a name that is no removable block of the model."""
    unknown = [name for name in asked if name not in blocks]
    if unknown:
        raise ModelError(
            "depth.blocks: no such removable block",
            got=", ".join(f"'{name}'" for name in unknown),
            rule="a block keeps the shape of its input, runs once and is not protected; here: "
            + (", ".join(blocks) or "none"),
            fix="name some of these in compress.recipe, or give `remove: N` instead",
        )
