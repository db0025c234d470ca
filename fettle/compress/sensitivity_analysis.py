"""Sensitivity analysis: the loss after a cut, before any training, per block and per group.

A part is ablated, the mean loss of a few training images is taken, the part comes back. The cost
is kept down by running only what lies behind the part: a model that is a chain of modules
(nn.Sequential, nested or not) keeps the activations between them. BatchNorm uses the batch's own
statistics throughout, for the running ones describe inputs that a cut takes away.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fettle import memory_format
from fettle.compress import (
    channel_groups,
    channel_importance,
    input_resizing,
    layer_costs,
    removable_blocks,
)
from fettle.compress.technique import Block, CompressionContext, GroupSensitivity, SensitivityReport
from fettle.errors import ModelError
from fettle.facts.compress_facts import BlockLoss, GroupLoss, SensitivityDocument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from fettle.compress.channel_groups import Group
    from fettle.compress.channel_importance import Importance

# Two batches of 64; felt right. All blocks and groups of EfficientNet-Lite0 at 32 px then take 17 s
# on one core of a machine with six other jobs.
IMAGES = 128
WHOLE = "(the whole model)"
SHARES = (0.75, 0.5, 0.25)


@dataclass
class LossProbe:
    """Loss probe: a private copy of a model, with the activations between its parts on fixed
    images.

    `chain` are (name, part) in the order they run; `cached[b][k]` is batch b before part k.
    """

    chain: list[tuple[str, nn.Module]]
    modules: dict[str, nn.Module]
    cached: list[list[Tensor]]
    labels: list[Tensor]

    def loss(self, touched: Iterable[str] = ()) -> float:
        """Return the mean cross-entropy, running from the first part that holds a touched name."""
        import torch
        from torch.nn import functional as F

        start = min((self._part_of(name) for name in touched), default=len(self.chain))
        total, images = 0.0, 0
        with torch.no_grad():
            for inputs, labels in zip(self.cached, self.labels, strict=True):
                x = inputs[start].clone()
                for _, part in self.chain[start:]:
                    x = part(x)
                total += float(F.cross_entropy(x, labels, reduction="sum"))
                images += len(labels)
        return total / images

    def _part_of(self, name: str) -> int:
        for index, (part, _) in enumerate(self.chain):
            if not part or name == part or name.startswith(f"{part}."):
                return index
        return 0


def loss_probe(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    images_max: int,
    whole: Collection[str] = (),
) -> LossProbe:
    """Copy `model` and run about `images_max` images through the copy; `whole` are not split."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    probe = copy.deepcopy(model).eval()
    memory_format.lay_out(probe)
    for module in probe.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    size_px = input_resizing.size_of(probe)  # a chain's own hooks do not run with its parts
    chain = _chain("", probe, whole)
    cached: list[list[Tensor]] = []
    labels: list[Tensor] = []
    seen = 0
    with torch.no_grad():
        for images, answers in batches:
            if len(images) < 2:
                continue  # no variance
            # a clone, by its strides: a part may write into what it is given
            images = input_resizing.scale(images, size_px or images.shape[-1])
            between = [images.clone(memory_format=memory_format.of(probe))]
            for _, part in chain:
                between.append(part(between[-1].clone()))
            cached.append(between)
            labels.append(answers)
            seen += len(answers)
            if seen >= images_max:
                break
    return LossProbe(chain, dict(probe.named_modules()), cached, labels)


def _chain(name: str, module: nn.Module, whole: Collection[str]) -> list[tuple[str, nn.Module]]:
    from torch import nn

    if type(module) is not nn.Sequential or not len(module) or name in whole:
        return [(name, module)]
    chain = []
    for child_name, child in module.named_children():
        chain += _chain(f"{name}.{child_name}" if name else child_name, child, whole)
    return chain


@contextmanager
def bypassed_blocks(probe: LossProbe, names: Iterable[str]) -> Iterator[None]:
    """Bypass the named blocks: they hand their input on."""
    with ExitStack() as stack:
        for name in names:
            hook = probe.modules[name].register_forward_hook(lambda _m, inputs, _o: inputs[0])
            stack.callback(hook.remove)
        yield


@contextmanager
def masked_channels(probe: LossProbe, group: Group, channels: Sequence[int]) -> Iterator[None]:
    """Mask the given root channels of a group in every layer that makes them."""
    import torch

    kept: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for member in group.members:
            if member.side != "out":
                continue
            gone = [position for channel in channels for position in member.positions[channel]]
            for part in ("weight", "bias"):
                tensor = getattr(probe.modules[member.layer], part, None)
                if tensor is not None:
                    kept.append((tensor, tensor.clone()))
                    tensor[gone] = 0
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, old in kept:
                tensor.copy_(old)


def measure_sensitivity(
    model: nn.Module,
    context: CompressionContext,
    *,
    importance: Importance = "l2",
    shares: Sequence[float] = SHARES,
    as_built: bool = False,
) -> SensitivityReport:
    """Sensitivity of `model` as it stands: costs, blocks and groups, each with the loss that hangs
    on it.

    Channels go in the order of `importance`, down to each of `shares` (falling); with none the
    groups are listed, not measured. A model that cannot be traced has no group, and `skipped` says
    so under WHOLE.
    """
    import torch

    model = copy.deepcopy(model).requires_grad_(True)  # tracing follows gradients
    layers = layer_costs.count_layers(model, context.example)
    names = removable_blocks.find_blocks(model, context.example, context.protected)
    probe = loss_probe(model, context.batches(), images_max=IMAGES, whole=names)
    loss = probe.loss()
    try:
        groups, skipped = channel_groups.find_groups(model, context.example, context.protected)
    except ModelError as err:
        groups, skipped = [], {WHOLE: str(err)}
    generator = torch.Generator().manual_seed(context.seed)
    gates = channel_importance.required_sensitivities(
        importance, model, context.batches(), images_max=IMAGES
    )
    measured = []
    for group in groups:
        scores = channel_importance.score_channels(
            group, importance, generator=generator, gates=gates
        )
        if scores is not None:
            measured.append(_group(probe, group, scores, loss, shares))
    return SensitivityReport(
        layers=tuple(layers),
        blocks=tuple(_block(probe, name, layers, loss) for name in names),
        groups=tuple(measured),
        loss=loss,
        images=sum(len(label) for label in probe.labels),
        skipped=skipped,
        as_built=as_built,
        size_px=input_resizing.size_of(model) or context.example.shape[-1],
    )


def _group(
    probe: LossProbe, group: Group, scores: Tensor, loss: float, shares: Sequence[float]
) -> GroupSensitivity:
    import torch

    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    rises = []
    for share in shares:
        with masked_channels(probe, group, order[int(group.width * share + 0.5) :]):
            rises.append((share, probe.loss(group.producers) - loss))
    return GroupSensitivity(
        name=group.name,
        width=group.width,
        layers=tuple(dict.fromkeys(member.layer for member in group.members)),
        losses=tuple(rises),
    )


def _block(
    probe: LossProbe, name: str, layers: Sequence[layer_costs.LayerCost], loss: float
) -> Block:
    inside = [layer for layer in layers if layer.name.startswith(f"{name}.")]
    with bypassed_blocks(probe, [name]):
        rise = probe.loss([name]) - loss
    params, macs = layer_costs.totals(inside)
    return Block(
        name=name,
        layers=tuple(layer.name for layer in inside),
        params=params,
        macs=macs,
        loss_increase=rise,
    )


def least_sensitive_blocks(
    model: nn.Module, context: CompressionContext, blocks: Sequence[str], *, count: int
) -> list[str]:
    """Choose `count` blocks to take out, one after the other, each the least missed of the rest.

    Measured with the earlier ones already out: two blocks that stand in for one another are not
    both called superfluous. Equal losses take the first.
    """
    probe = loss_probe(model, context.batches(), images_max=IMAGES, whole=blocks)
    gone: list[str] = []
    for _ in range(min(count, len(blocks))):
        losses = {}
        for name in (block for block in blocks if block not in gone):
            with bypassed_blocks(probe, [*gone, name]):
                losses[name] = probe.loss([*gone, name])
        gone.append(min(losses, key=losses.__getitem__))
    return gone


def predicted_increase(
    sensitivity: SensitivityReport, *, shares: Mapping[str, float], removed: Iterable[str] = ()
) -> float:
    """Predict the rise of the mean loss (nats) by adding up what was measured part by part.

    `shares` are the kept shares by group name, in between measured ones on a straight line;
    `removed` are block names. That the parts do not answer for one another is an assumption; the
    search reports how far it was off.
    """
    blocks = {block.name: block.loss_increase for block in sensitivity.blocks}
    total = sum(blocks[name] for name in removed)
    for group in sensitivity.groups:
        total += _between(((1.0, 0.0), *group.losses), shares.get(group.name, 1.0))
    return total


def _between(points: Sequence[tuple[float, float]], share: float) -> float:
    """Interpolate points of falling share; below the last one, go on along its slope."""
    for index, (left, right) in enumerate(itertools.pairwise(points)):
        if share >= right[0] or index == len(points) - 2:
            return left[1] + (right[1] - left[1]) * (left[0] - share) / (left[0] - right[0])
    return points[0][1]


def document(report: SensitivityReport) -> SensitivityDocument:
    """Return the document that sensitivity.json holds."""
    return SensitivityDocument(
        loss=report.loss,
        images=report.images,
        blocks=tuple(
            BlockLoss(
                name=block.name,
                layers=block.layers,
                params=block.params,
                macs=block.macs,
                loss_increase=block.loss_increase,
            )
            for block in report.blocks
        ),
        groups=tuple(
            GroupLoss(name=group.name, width=group.width, layers=group.layers, losses=group.losses)
            for group in report.groups
        ),
        skipped=dict(sorted(report.skipped.items())),
    )
