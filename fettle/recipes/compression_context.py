"""Compression context of a model as it stands: what every technique and analysis is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType

from torch import nn

from fettle import plugins
from fettle.compress.compression_plan import CompressionPlan
from fettle.compress.technique import CompressionContext, RecoveryFit
from fettle.params import Strict
from fettle.recipes.recovery_training import (
    CompressionJob,
    example_input,
    skip_training,
    training_batches,
)


def compression_context(
    job: CompressionJob,
    model: nn.Module,
    plan: CompressionPlan,
    *,
    fit: RecoveryFit = skip_training,
) -> CompressionContext:
    """Compression context for `model`, which `plan` made of the full architecture.

    Without a `fit` nothing is trained: for a copy that is only looked at.
    """
    return CompressionContext(
        example=example_input(job),
        protected=protected_layers(job, model, plan),
        channel_multiple=channel_multiple(job.params.targets),
        seed=job.params.seed,
        batches=lambda: training_batches(job),
        fit=fit,
        build=lambda family, options: build_network(job, family, options),
    )


def protected_layers(
    job: CompressionJob, model: nn.Module, plan: CompressionPlan
) -> dict[str, str]:
    """Protected layers by name, each with the reason: those that the model's family names."""
    name = plan.architecture.family if plan.architecture else job.facts.family
    family = plugins.resolve("families", name, where="finetune.family")
    inside = {part for module in family.protected(model) for part in module.modules()}
    reason = f"protected by fettle/models/families/{name}.py"
    return {layer: reason for layer, module in model.named_modules() if module in inside}


def channel_multiple(targets: list[str]) -> int:
    """Channel multiple of all targets, the largest: one model serves them all."""
    multiples = [
        plugins.resolve("targets", name, where=f"targets[{index}]").TARGET.channel_multiple
        for index, name in enumerate(targets)
    ]
    return int(max(multiples))


def build_network(job: CompressionJob, name: str, options: Mapping[str, object]) -> nn.Module:
    """Network of a family, untrained, for the images and classes at hand."""
    family = plugins.resolve("families", name, where="finetune.family")
    model: nn.Module = family.build(
        parse_options(family, options),
        classes=len(job.facts.classes),
        channels=job.facts.channels,
        size_px=job.facts.size_px,
        project=job.project,
    )
    return model


def parse_options(plugin: ModuleType, options: Mapping[str, object]) -> Strict:
    """Options of a plug-in, parsed again: params.yaml's check already let them through."""
    model: type[Strict] = plugin.Params
    return model.model_validate_json(json.dumps(dict(options)))
