"""Compression plan: what was done to the architecture, as data that a fresh network is cut to.

A compressed model travels as this plan (JSON) beside its weights (safetensors), never as a pickle:
build the architecture the plan names (or the family's own), `apply` the plan, load the weights. The
techniques change a model through the same `cut` and `replace`, so a re-applied plan cannot differ
from the model it came from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NotRequired, TypedDict

from fettle.compress import input_resizing, replacement_layers
from fettle.compress.replacement_layers import Part, PartDocument
from fettle.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEMA = 3
READABLE = (1, 2, 3)  # 1 had kept channels only, 2 no input_size_px


@dataclass(frozen=True, slots=True)
class KeptChannels:
    """Kept channels of a layer, ascending, in the numbering of the full architecture, or of
    the part that took the layer's place.

    None means all of them. `out_full` and `in_full` are the full widths. A depthwise convolution
    and a normalisation have outputs only: their inputs are the same channels.
    """

    out_full: int
    out: tuple[int, ...] | None = None
    in_full: int | None = None
    in_: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Architecture:
    """A family (a file in fettle/models/families) with its options: where a plan starts."""

    family: str
    options: Mapping[str, object]  # the family's Params checks them


_LayerDocument = TypedDict(
    "_LayerDocument",
    {"out": list[int] | None, "out_full": int, "in": list[int] | None, "in_full": int | None},
)


class _ArchitectureDocument(TypedDict):
    family: str
    options: dict[str, object]


class PlanDocument(TypedDict):
    """Compression plan as plan.json holds it; schema 1 had `layers` only."""

    schema: int
    architecture: NotRequired[_ArchitectureDocument | None]
    replaced: NotRequired[dict[str, PartDocument]]
    layers: dict[str, _LayerDocument]
    input_size_px: NotRequired[int | None]


@dataclass(frozen=True, slots=True)
class CompressionPlan:
    """Compression plan of a network, by module name; a module that is not named stays as it was
    built.

    `architecture` is another network than the fine-tuned one, or None. `replaced` modules gave way
    to a plain part (nothing at all, a merged convolution, two thin layers), outer ones first;
    `layers` kept some of their channels after that. `input_size_px` is the side of the images that
    it takes, None where they are as large as the float model's.
    """

    layers: Mapping[str, KeptChannels] = field(default_factory=dict)
    replaced: Mapping[str, Part] = field(default_factory=dict)
    architecture: Architecture | None = None
    input_size_px: int | None = None

    def to_json(self) -> dict[str, object]:
        """Return the document that plan.json holds."""
        start = self.architecture
        return {
            "schema": SCHEMA,
            "architecture": None
            if start is None
            else {"family": start.family, "options": dict(start.options)},
            "replaced": {name: part.to_json() for name, part in sorted(self.replaced.items())},
            "layers": {
                name: {
                    "out": None if kept.out is None else list(kept.out),
                    "out_full": kept.out_full,
                    "in": None if kept.in_ is None else list(kept.in_),
                    "in_full": kept.in_full,
                }
                for name, kept in sorted(self.layers.items())
            },
            "input_size_px": self.input_size_px,
        }

    @classmethod
    def from_json(cls, doc: PlanDocument) -> CompressionPlan:
        """Read the document back; raises ModelError for another schema."""
        if doc.get("schema") not in READABLE:
            raise ModelError(
                "the compression plan has another schema",
                got=json.dumps(doc.get("schema")),
                rule=f"this version reads schema {', '.join(map(str, READABLE))}",
                fix="run `fettle run` again, which writes a new plan",
            )
        start = doc.get("architecture")
        return cls(
            layers={
                name: KeptChannels(
                    out_full=entry["out_full"],
                    out=None if entry["out"] is None else tuple(entry["out"]),
                    in_full=entry["in_full"],
                    in_=None if entry["in"] is None else tuple(entry["in"]),
                )
                for name, entry in doc["layers"].items()
            },
            replaced={
                name: Part.from_json(entry) for name, entry in doc.get("replaced", {}).items()
            },
            architecture=None if start is None else Architecture(start["family"], start["options"]),
            input_size_px=doc.get("input_size_px"),
        )


def channel_counts(module: nn.Module) -> tuple[int, int | None] | None:
    """Channel counts (outputs, inputs) of a layer that a plan can cut, else None.

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


def apply(model: nn.Module, plan: CompressionPlan) -> None:
    """Bring a freshly built full `model` to `plan`, in place; build the plan's architecture first.

    Raises ModelError when the model is not the architecture the plan was made for.
    """
    for name in sorted(plan.replaced, key=lambda name: (name.count("."), name)):
        if name not in dict(model.named_modules()):
            raise _misfit(name, "no such module", "the plan puts another part in its place")
        set_submodule(model, name, replacement_layers.build_module(plan.replaced[name]))
    modules = dict(model.named_modules())
    for name, kept in plan.layers.items():
        counts = channel_counts(modules[name]) if name in modules else None
        if counts != (kept.out_full, kept.in_full):
            got = "no such layer" if counts is None else f"widths (out, in) {counts}"
            raise _misfit(name, got, f"the plan was made for {(kept.out_full, kept.in_full)}")
        cut_channels(modules[name], out=kept.out, in_=kept.in_)
    if plan.input_size_px is not None:
        input_resizing.install(model, plan.input_size_px)


def _misfit(name: str, got: str, rule: str) -> ModelError:
    return ModelError(
        f"the compression plan does not fit the model: layer '{name}'",
        got=got,
        rule=rule,
        fix="build the model with the family and options that the plan was made with",
    )


def set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set the submodule `name` of `model` to `module`, in place."""
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)


def replace_submodule(
    model: nn.Module, plan: CompressionPlan, name: str, module: nn.Module
) -> CompressionPlan:
    """Put `module` (plain kinds only, see replacement_layers) in the place of submodule `name`, in
    place.

    Returns the plan that does the same to a fresh network: what it said of `name` and of all
    inside it is void.
    """
    set_submodule(model, name, module)

    def outside(other: str) -> bool:
        return other != name and not other.startswith(f"{name}.")

    return replace(
        plan,
        layers={entry: kept for entry, kept in plan.layers.items() if outside(entry)},
        replaced={
            **{entry: part for entry, part in plan.replaced.items() if outside(entry)},
            name: replacement_layers.describe_module(module),
        },
    )


def cut_channels(
    module: nn.Module, *, out: tuple[int, ...] | None, in_: tuple[int, ...] | None
) -> None:
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


def remove_channels(
    plan: CompressionPlan,
    modules: Mapping[str, nn.Module],
    removed: Mapping[tuple[str, str], set[int]],
) -> CompressionPlan:
    """Return `plan` with more channels removed.

    `removed` maps (layer name, "out" or "in") to positions in the layer as it is *now*;
    `modules` are the layers as they are now, before they are cut.
    """
    layers = dict(plan.layers)
    for (name, side), gone in sorted(removed.items()):
        width = channel_counts(modules[name])
        assert width is not None, name  # the pruner offers only layers that can be cut
        old = layers.get(name, KeptChannels(out_full=width[0], in_full=width[1]))
        if side == "out":
            out = _without(old.out, old.out_full, gone)
            layers[name] = KeptChannels(old.out_full, out, old.in_full, old.in_)
        else:
            assert old.in_full is not None, name
            in_ = _without(old.in_, old.in_full, gone)
            layers[name] = KeptChannels(old.out_full, old.out, old.in_full, in_)
    return replace(plan, layers=layers)


def _without(kept: tuple[int, ...] | None, full: int, gone: set[int]) -> tuple[int, ...]:
    now = range(full) if kept is None else kept
    return tuple(channel for index, channel in enumerate(now) if index not in gone)
