"""Channel groups that must be cut together: Torch-Pruning's dependency groups, as plain values.

Fang et al. 2023, DepGraph (arXiv:2301.12900). Only the tracing is the library's: the cutting is
ours (`compression_plan.cut_channels`), so that a plan re-applied without the library gives the
same model. A group is left alone, with the reason, when one of its layers may not or cannot be cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fettle.compress import forward_hooks
from fettle.compress.compression_plan import channel_counts
from fettle.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch_pruning.dependency import DependencyGraph
    from torch_pruning.dependency import Group as TracedGroup


@dataclass(frozen=True, slots=True)
class Member:
    """One side of one layer; `positions[c]` are the layer's channels that follow root channel c."""

    layer: str
    side: str  # "out" or "in"
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """`width` root channels, each of which runs through every member."""

    width: int
    members: tuple[Member, ...]
    norms: frozenset[str]  # members that are normalisations: they have the last word on a channel
    traced: TracedGroup  # Torch-Pruning's own, which its importances read

    @property
    def producers(self) -> tuple[str, ...]:
        """The layers that lose outputs."""
        return tuple(member.layer for member in self.members if member.side == "out")

    @property
    def name(self) -> str:
        """The first layer that loses outputs."""
        return self.producers[0]


def find_groups(
    model: nn.Module, example: Tensor, protected: Mapping[str, str]
) -> tuple[list[Group], dict[str, str]]:
    """Trace `model` on `example` [1, C, S, S]; return the groups that may be cut and, for every
    other layer with outputs, why it may not.

    Raises ModelError when the model cannot be traced.
    """
    import torch
    import torch_pruning as tp
    from torch import nn

    names = {module: name for name, module in model.named_modules()}
    was_training = model.training
    model.eval()
    try:
        forbidden = {**_shared(model, example), **protected}
        with torch.enable_grad():
            graph = tp.DependencyGraph().build_dependency(
                model, example_inputs=(example,), verbose=False
            )
    except Exception as err:  # the library raises whatever its tracing met
        raise ModelError(
            "the model cannot be traced for pruning",
            got=f"{type(err).__name__}: {err}",
            rule="pruning follows each channel from layer to layer",
            fix="take `prune` out of compress.recipe, or simplify the model's forward",
        ) from err
    finally:
        model.train(was_training)
    groups: list[Group] = []
    skipped: dict[str, str] = {}
    roots = (nn.modules.conv._ConvNd, nn.Linear)
    for traced in graph.get_all_groups(root_module_types=roots):
        group = _group(graph, traced, names)
        reason = _obstacle(traced, group, names, forbidden)
        if reason is None:
            groups.append(group)
        else:
            skipped |= {layer: forbidden.get(layer, reason) for layer in group.producers}
    reached = {layer for group in groups for layer in group.producers} | set(skipped)
    for name, module in model.named_modules():
        if isinstance(module, roots) and name not in reached:
            skipped[name] = "no channel of it was met when the model was traced"
    return groups, skipped


def _group(graph: DependencyGraph, traced: TracedGroup, names: Mapping[nn.Module, str]) -> Group:
    from torch.nn.modules.batchnorm import _BatchNorm

    width = len(traced[0].idxs)
    members = []
    norms = set()
    for item in traced:
        layer = item.dep.target.module
        if layer not in names or None in item.root_idxs:
            continue  # an operation without parameters, or an obstacle, reported by _obstacle
        sizes = channel_counts(layer)
        outputs = graph.is_out_channel_pruning_fn(item.dep.handler)
        side = "out" if outputs or sizes is None or sizes[1] is None else "in"
        positions: list[list[int]] = [[] for _ in range(width)]
        for position, root in zip(item.idxs, item.root_idxs, strict=True):
            positions[root].append(position)
        members.append(Member(names[layer], side, tuple(map(tuple, positions))))
        if isinstance(layer, _BatchNorm):
            norms.add(names[layer])
    return Group(width, tuple(members), frozenset(norms), traced)


def _obstacle(
    traced: TracedGroup,
    group: Group,
    names: Mapping[nn.Module, str],
    forbidden: Mapping[str, str],
) -> str | None:
    """Say why a group must stay whole, or None."""
    from torch_pruning.ops import OPTYPE

    free = {
        OPTYPE.CONCAT, OPTYPE.SPLIT, OPTYPE.ELEMENTWISE, OPTYPE.RESHAPE, OPTYPE.EXPAND, OPTYPE.SLICE
    }  # fmt: skip
    for item in traced:
        node, layer = item.dep.target, item.dep.target.module
        name = names.get(layer)
        if node.type == OPTYPE.OUTPUT or (not node.outputs and _loses_outputs(group, name)):
            return "its channels are the model's outputs"
        if None in item.root_idxs:
            return "its channels could not be followed through the model"
        if name is None:
            if node.type not in free:
                return f"its channels meet an operation that cannot be cut ({node.type.name})"
        elif channel_counts(layer) is None and (
            node.type not in free or any(True for _ in layer.parameters())
        ):
            return f"its channels meet '{name}' ({type(layer).__name__}), which cannot be cut"
    for layer_name in group.producers:
        if layer_name in forbidden:
            return f"it shares its channels with '{layer_name}': {forbidden[layer_name]}"
    return None


def _loses_outputs(group: Group, name: str | None) -> bool:
    return name in group.producers


def _shared(model: nn.Module, example: Tensor) -> dict[str, str]:
    """Name layers that run more than once or share their weights: cutting one cuts the other."""
    from torch.nn.utils import parametrize

    calls: Counter[str] = Counter()
    hooks = [
        module.register_forward_hook(lambda _m, _i, _o, name=name: calls.update([name]))
        for name, module in model.named_modules()
        if channel_counts(module) is not None
    ]
    forward_hooks.forward(model, example, hooks)
    reasons = {name: "it runs more than once" for name, count in calls.items() if count > 1}
    owners = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    for name, module in model.named_modules():
        if any(owners[id(parameter)] > 1 for parameter in module.parameters(recurse=False)):
            reasons[name] = "it shares its weights with another layer"
        if parametrize.is_parametrized(module):
            reasons[name] = "its weights are computed from others (a parametrization)"
    return reasons
