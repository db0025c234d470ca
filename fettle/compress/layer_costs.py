"""Layer costs: parameters and multiply-accumulates (MACs) of a torch module, layer by layer.

Of the module itself, so that layers.json can name what pruning removed; the shipped file is
counted on its ONNX graph by fettle/hardware/onnx_cost.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fettle.compress import forward_hooks
from fettle.facts.compress_facts import LayerChange, LayerTable

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost of one layer with parameters of its own; `macs` are for one image."""

    name: str
    kind: str
    channels: int
    params: int
    macs: int


def count_layers(model: nn.Module, example: Tensor) -> list[LayerCost]:
    """Run `example` [1, C, S, S] through `model` and list its layers in the order of the module.

    A parameter that layers share is counted with the first of them. Convolution and linear layers
    count multiply-accumulates, every other kind counts none.
    """
    macs: dict[nn.Module, int] = {}

    def note(module: nn.Module, _inputs: object, output: Tensor) -> None:
        macs[module] = macs.get(module, 0) + _macs(module, output)

    owners = {n: m for n, m in model.named_modules() if any(True for _ in m.parameters(False))}
    hooks = [m.register_forward_hook(note) for m in owners.values()]
    forward_hooks.forward(model, example, hooks)
    counted: set[Tensor] = set()
    layers = []
    for name, module in owners.items():
        own = [p for p in module.parameters(False) if p not in counted]
        counted.update(own)
        shape = next(module.parameters(False)).shape
        layers.append(
            LayerCost(
                name=name,
                kind=type(module).__name__,
                channels=int(shape[0]) if shape else 1,
                params=sum(p.numel() for p in own),
                macs=macs.get(module, 0),
            )
        )
    return layers


def _macs(module: nn.Module, output: Tensor) -> int:
    from torch import nn

    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return int(output.numel() * module.weight[0].numel())
    if isinstance(module, nn.Linear):
        return int(output.numel() * module.in_features)
    return 0


def totals(layers: Sequence[LayerCost]) -> tuple[int, int]:
    """Sum (parameters, multiply-accumulates for one image)."""
    return sum(layer.params for layer in layers), sum(layer.macs for layer in layers)


def compare_layers(before: Sequence[LayerCost], after: Sequence[LayerCost]) -> LayerTable:
    """Pair the layers of two models by name, for layers.json; one that is gone has zeros after."""
    now = {layer.name: layer for layer in after}
    rows = []
    for old in before:
        new = now.get(old.name, LayerCost(old.name, old.kind, 0, 0, 0))
        rows.append(
            LayerChange(
                layer=old.name,
                kind=old.kind,
                channels_before=old.channels,
                channels_after=new.channels,
                params_before=old.params,
                params_after=new.params,
                macs_before=old.macs,
                macs_after=new.macs,
            )
        )
    return LayerTable(tuple(rows))
