"""Keep what pruning did as data: for each layer, the channels of the full architecture it keeps.

A pruned model travels as this plan (JSON) beside its weights (safetensors), never as a pickle:
build the family's architecture, `apply` the plan, load the weights. The pruner cuts through the
same `cut`, so a re-applied plan cannot differ from the model it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fettle.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """The channels one layer keeps, ascending, in the numbering of the full architecture.

    None means all of them. `out_full` and `in_full` are the full widths. A depthwise convolution
    and a normalisation have outputs only: their inputs are the same channels.
    """

    out_full: int
    out: tuple[int, ...] | None = None
    in_full: int | None = None
    in_: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Kept channels by layer name; a layer that is not named keeps everything."""

    layers: Mapping[str, Kept] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:  # Any: a JSON document
        """Return the document that plan.json holds."""
        return {
            "schema": SCHEMA,
            "layers": {
                name: {
                    "out": None if kept.out is None else list(kept.out),
                    "out_full": kept.out_full,
                    "in": None if kept.in_ is None else list(kept.in_),
                    "in_full": kept.in_full,
                }
                for name, kept in sorted(self.layers.items())
            },
        }

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Plan:  # Any: a JSON document
        """Read the document back; raises ModelError for another schema."""
        if doc.get("schema") != SCHEMA:
            raise ModelError(
                "the prune plan has another schema",
                got=json.dumps(doc.get("schema")),
                rule=f"this version reads schema {SCHEMA}",
                fix="run `fettle run` again, which writes a new plan",
            )
        return cls(
            {
                name: Kept(
                    out_full=one["out_full"],
                    out=None if one["out"] is None else tuple(one["out"]),
                    in_full=one["in_full"],
                    in_=None if one["in"] is None else tuple(one["in"]),
                )
                for name, one in doc["layers"].items()
            }
        )


def widths(module: nn.Module) -> tuple[int, int | None] | None:
    """Return (outputs, inputs) of a layer that a plan can cut, else None.

    Inputs are None where they are the outputs (depthwise, normalisation). A convolution with
    groups that is not depthwise, a transposed one, and every other kind of layer cannot be cut.
    """
    from torch import nn

    match module:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            if module.groups == 1:
                return module.out_channels, module.in_channels
            depthwise = module.groups == module.in_channels == module.out_channels
            return (module.out_channels, None) if depthwise else None
        case nn.Linear():
            return module.out_features, module.in_features
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.BatchNorm3d():
            return module.num_features, None
        case _:
            return None


def apply(model: nn.Module, plan: Plan) -> None:
    """Cut a freshly built full `model` in place to `plan`.

    Raises ModelError when the model is not the architecture the plan was made for.
    """
    modules = dict(model.named_modules())
    for name, kept in plan.layers.items():
        found = widths(modules[name]) if name in modules else None
        if found != (kept.out_full, kept.in_full):
            raise ModelError(
                f"the prune plan does not fit the model: layer '{name}'",
                got="no such layer" if found is None else f"widths (out, in) {found}",
                rule=f"the plan was made for {(kept.out_full, kept.in_full)}",
                fix="build the model with the family and options that the plan was made with",
            )
        cut(modules[name], out=kept.out, in_=kept.in_)


def cut(module: nn.Module, *, out: tuple[int, ...] | None, in_: tuple[int, ...] | None) -> None:
    """Keep only the given output and input channels of one layer, in place; None keeps all."""
    from torch import nn

    if out is not None:
        for name in ("weight", "bias", "running_mean", "running_var"):
            _select(module, name, axis=0, indices=out)
    if in_ is not None:
        _select(module, "weight", axis=1, indices=in_)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        module.out_channels = module.weight.shape[0]
        if module.groups > 1:  # depthwise
            module.groups = module.in_channels = module.out_channels
        else:
            module.in_channels = module.weight.shape[1]
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        module.num_features = module.num_features if out is None else len(out)


def _select(module: nn.Module, name: str, *, axis: int, indices: tuple[int, ...]) -> None:
    import torch
    from torch import nn

    tensor: Tensor | None = getattr(module, name, None)
    if tensor is None:
        return
    chosen = tensor.detach().index_select(axis, torch.tensor(indices, device=tensor.device))
    if isinstance(tensor, nn.Parameter):
        setattr(module, name, nn.Parameter(chosen, requires_grad=tensor.requires_grad))
    else:
        setattr(module, name, chosen)


def narrow(
    plan: Plan, modules: Mapping[str, nn.Module], removed: Mapping[tuple[str, str], set[int]]
) -> Plan:
    """Return `plan` with more channels removed.

    `removed` maps (layer name, "out" or "in") to positions in the layer as it is *now*;
    `modules` are the layers as they are now, before they are cut.
    """
    layers = dict(plan.layers)
    for (name, side), gone in sorted(removed.items()):
        width = widths(modules[name])
        assert width is not None, name  # the pruner offers only layers that can be cut
        old = layers.get(name, Kept(out_full=width[0], in_full=width[1]))
        if side == "out":
            out = _without(old.out, old.out_full, gone)
            layers[name] = Kept(old.out_full, out, old.in_full, old.in_)
        else:
            assert old.in_full is not None, name
            in_ = _without(old.in_, old.in_full, gone)
            layers[name] = Kept(old.out_full, old.out, old.in_full, in_)
    return Plan(layers)


def _without(kept: tuple[int, ...] | None, full: int, gone: set[int]) -> tuple[int, ...]:
    now = range(full) if kept is None else kept
    return tuple(channel for at, channel in enumerate(now) if at not in gone)
