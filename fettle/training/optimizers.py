"""AdamW with one learning rate a group of layers; its state is stored without pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn


def build(
    groups: Sequence[Sequence[nn.Module]],
    *,
    learning_rate: float,
    decay_per_group: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """Make AdamW: group k (0 is the head) learns at learning_rate * decay_per_group ** k.

    Weight decay acts on matrices and kernels only, not on biases and BatchNorm's scales, which it
    would pull towards a dead layer. Each torch parameter group carries "group" (k) and "base_rate".
    """
    parts = []
    for index, modules in enumerate(groups):
        weights = [p for module in modules for p in module.parameters()]
        rate = learning_rate * decay_per_group**index
        for wide, decay in ((True, weight_decay), (False, 0.0)):
            chosen = [p for p in weights if (p.ndim > 1) == wide]
            if chosen:
                parts.append(
                    {
                        "params": chosen,
                        "lr": rate,
                        "weight_decay": decay,
                        "group": index,
                        "base_rate": rate,
                    }
                )
    return torch.optim.AdamW(parts, lr=learning_rate)


def unfreeze(groups: Sequence[Sequence[nn.Module]], count: int) -> None:
    """Let the first `count` groups learn and freeze the rest.

    Frozen BatchNorm layers stay in train mode: their statistics must move to the new data.
    """
    for index, modules in enumerate(groups):
        for module in modules:
            module.requires_grad_(index < count)


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten the state into tensors named "<parameter index>.<entry>"."""
    tensors = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value)
    return tensors


def load_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `state_tensors` gave, into an optimizer built the same way."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    whole["state"] = state
    optimizer.load_state_dict(whole)
