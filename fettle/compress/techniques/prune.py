"""Structured pruning: whole channels go by dependency groups, in steps with recovery training.

One step: score the channels of each group, keep the best, cut them out of every layer they run
through, measure BatchNorm again, train towards the unpruned model. Widths are rounded to the
targets' vector width. What was kept is a plan (plan.json); what could not be cut is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fettle.compress import (
    batchnorm_statistics,
    channel_groups,
    channel_importance,
    compression_plan,
    forward_hooks,
)
from fettle.compress.channel_importance import Importance
from fettle.compress.technique import (
    Capabilities,
    CompressionContext,
    SensitivityReport,
    TechniqueResult,
    recover,
)
from fettle.params_schema import Fraction, Options, Positive, Strict

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fettle.compress.channel_groups import Group
    from fettle.compress.compression_plan import CompressionPlan

CLAIMS = Capabilities(
    needs_training=True,
    shrinks_parameters=True,
    shrinks_macs=True,
    keeps_shapes=False,
)

# Averages over images. Gates need many: on photos (30 % removed, no training after) 65 % accuracy
# with 512 images, 78 % with all 1,440. Each costs as much as an image of training.
GATE_IMAGES_MAX = 1536
# Shares to propose: from what surely holds to what pays. Less comes by a further move (NetAdapt,
# Yang et al. 2018, arXiv:1804.03230, loses 2.5 to 5 % a move; larger moves fit a budget of tens).
PROPOSED_FRACTIONS = (0.9, 0.7, 0.5)
# How the proposals choose: photos of clothes at 128 px, float 89.7 %, no training after the cut.
# Share 0.7 by magnitude in every group 61.6 % (1.9x fewer MACs), by the loss's sensitivity 72.7 %,
# by sensitivity over all groups together 89.2 % (1.4x); 0.6 so 82.4 % (1.7x).
PROPOSED_RANKING: Options = {"importance": "taylor", "scope": "global"}


class Params(Strict):
    """Pruning options: how many channels stay, how accuracy is recovered.

    `scope` uniform keeps the same share in every group, global ranks all channels together.
    """

    keep_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    steps: Positive = 1
    importance: Importance = "l2"
    scope: Literal["uniform", "global"] = "uniform"
    bn_reestimate: bool = True
    recover_epochs: Annotated[int, Field(ge=0)] = 2
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Fraction = 0.9


def proposals(sensitivity: SensitivityReport, *, multiple: int, seed: int) -> list[Options]:
    """Propose shares that take channels from at least one group, each fewer than the last."""
    del seed  # nothing here is drawn
    options: list[Options] = []
    widths = last = [group.width for group in sensitivity.groups]
    for fraction in PROPOSED_FRACTIONS:
        counts = [rounded_count(width, width, fraction, multiple) for width in widths]
        if counts != last:
            options.append({"keep_fraction": fraction, **PROPOSED_RANKING})
        last = counts
    return options


def apply(
    model: nn.Module, plan: CompressionPlan, options: Params, context: CompressionContext
) -> TechniqueResult:
    """Prune `model` in place over `options.steps` steps; return the plan from the full model.

    Raises ModelError when the model cannot be traced, or does not run after a cut.
    """
    import torch

    generator = torch.Generator().manual_seed(context.seed)
    full: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for step in range(1, options.steps + 1):
        groups, skipped = channel_groups.find_groups(model, context.example, context.protected)
        for group in groups:
            full.setdefault(group.name, group.width)
        gates = channel_importance.required_sensitivities(
            options.importance, model, context.batches(), images_max=GATE_IMAGES_MAX
        )
        scores, unread = _score(groups, options.importance, generator, gates)
        skipped |= unread
        counts = choose_counts(
            scores,
            full={name: full[name] for name in scores},
            keep_fraction=step_fraction(options.keep_fraction, step, options.steps),
            multiple=context.channel_multiple,
            scope=options.scope,
        )
        plan = cut_groups(model, plan, groups, scores=scores, counts=counts)
        forward_hooks.check_runs(
            model,
            context.example,
            what="the model does not run after pruning",
            rule="a fixed channel count in its forward (a view, a shuffle) does not follow a cut",
            fix="take `prune` out of compress.recipe, or name those layers in the family's "
            "protected()",
        )
        if options.bn_reestimate:
            batchnorm_statistics.reestimate(
                model, context.batches(), images_max=batchnorm_statistics.IMAGES_MAX
            )
        recover(model, options, context, phase=f"step-{step}")
    notes = () if full else ("no layer could be pruned; see the reasons under skipped",)
    return TechniqueResult(plan=plan, skipped=dict(sorted(skipped.items())), notes=notes)


def step_fraction(keep_fraction: float, step: int, steps: int) -> float:
    """Return the share of the full width to keep after `step` of `steps`: a straight line."""
    return 1 - (1 - keep_fraction) * step / steps


def rounded_count(width: int, full: int, keep_fraction: float, multiple: int) -> int:
    """Round `full` * `keep_fraction` to the nearest multiple: never below one, nor above `width`.

    `width` is what the layer has now, `full` what it had before any pruning.
    """
    nearest = int(full * keep_fraction / multiple + 0.5) * multiple
    return min(width, max(multiple, nearest))


def choose_counts(
    scores: Mapping[str, Tensor],
    *,
    full: Mapping[str, int],
    keep_fraction: float,
    multiple: int,
    scope: Literal["uniform", "global"],
) -> dict[str, int]:
    """Say how many channels each group keeps, from its scores [width] and full width."""
    import torch

    shares = dict.fromkeys(scores, keep_fraction)
    if scope == "global" and scores:
        ranked = {
            name: channel_importance.normalise_scores(values) for name, values in scores.items()
        }
        total = int(sum(full.values()) * keep_fraction)
        pooled = torch.sort(torch.cat(list(ranked.values())), descending=True).values
        threshold = pooled[min(max(total, 1), len(pooled)) - 1]
        shares = {
            name: int((values >= threshold).sum()) / full[name] for name, values in ranked.items()
        }
    return {
        name: rounded_count(len(scores[name]), full[name], share, multiple)
        for name, share in shares.items()
    }


def cut_groups(
    model: nn.Module,
    plan: CompressionPlan,
    groups: Sequence[Group],
    *,
    scores: Mapping[str, Tensor],
    counts: Mapping[str, int],
) -> CompressionPlan:
    """Cut each group of `model` in place to its best `counts[name]` channels; return the new plan.

    Equal scores keep the channel with the lower number, so the choice is the same everywhere.
    """
    import torch

    removed: dict[tuple[str, str], set[int]] = {}
    for group in groups:
        if group.name not in counts:
            continue
        order = torch.sort(scores[group.name], descending=True, stable=True).indices
        for channel in order[counts[group.name] :].tolist():
            for member in group.members:
                gone = removed.setdefault((member.layer, member.side), set())
                gone.update(member.positions[channel])
    removed = {key: gone for key, gone in removed.items() if gone}
    modules = dict(model.named_modules())
    narrowed = compression_plan.remove_channels(plan, modules, removed)
    for name in sorted({layer for layer, _ in removed}):
        sides = {side: removed.get((name, side)) for side in ("out", "in")}
        kept = {side: _rest(modules[name], side, gone) for side, gone in sides.items()}
        compression_plan.cut_channels(modules[name], out=kept["out"], in_=kept["in"])
    return narrowed


def _rest(module: nn.Module, side: str, gone: set[int] | None) -> tuple[int, ...] | None:
    if gone is None:
        return None
    sizes = compression_plan.channel_counts(module)
    assert sizes is not None  # only layers that can be cut are members of a group
    width = sizes[0] if side == "out" else sizes[1]
    assert width is not None
    return tuple(channel for channel in range(width) if channel not in gone)


def _score(
    groups: Sequence[Group],
    importance: Importance,
    generator: torch.Generator,
    gates: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return scores by group name, and the layers that this importance cannot read."""
    scores: dict[str, Tensor] = {}
    unread: dict[str, str] = {}
    for group in groups:
        score = channel_importance.score_channels(
            group, importance, generator=generator, gates=gates
        )
        if score is None:
            reason = f"importance '{importance}' finds nothing to read in its group"
            unread |= dict.fromkeys(group.producers, reason)
        else:
            scores[group.name] = score
    return scores, unread
