"""The error of the predictor that screens cuts before anything is trained.

Seeded random cuts of the digits' float model: a share of each group's channels, some blocks out.
Predicted: the rise of the loss, added up from what was measured part by part. Got: the loss right
after the cut, and the accuracy on validation after a short recovery.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.context import Context, Prepared
from fettle.compress.technique import CompressionContext

WHAT = "predicted against measured loss after a cut, and the order of accuracies after recovery"
GOAL = "rank correlation >= 0.8 with the loss, printed with its error"

CUTS = 12
SHARES = (1.0, 0.75, 0.5, 0.25)
RECOVER_EPOCHS = 2
RANK_MIN = 0.8


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure on digits, where a recovery takes seconds."""
    if "digits" not in context.data:
        return
    one = context.prepare("digits")
    found = _cuts(context, one)
    predicted, lost, accuracy = (np.array(column) for column in zip(*found, strict=True))
    with_loss, with_accuracy = _rank(predicted, lost), _rank(predicted, -accuracy)
    error = float(np.median(np.abs(predicted - lost) / np.maximum(lost, 1e-3)))
    n = len(found)
    seeds = [context.seed, one.params.seed]
    cuts = f"{CUTS} seeded random cuts, {RECOVER_EPOCHS} epochs of recovery"
    yield benchmark_row.measured(
        "predictor, digits: rank correlation with the loss after the cut",
        with_loss,
        unit="1",
        n=n,
        seeds=seeds,
        goal=f">= {RANK_MIN:g}",
        holds=with_loss >= RANK_MIN,
        note=cuts,
    )
    yield benchmark_row.measured(
        "predictor, digits: rank correlation with the accuracy lost after recovery",
        with_accuracy,
        unit="1",
        n=n,
        seeds=seeds,
        note=cuts,
    )
    yield benchmark_row.measured(
        "predictor, digits: median relative error of the rise",
        error,
        unit="1",
        n=n,
        seeds=seeds,
        note="parts taken as independent",
    )


def _rank(left: Any, right: Any) -> float:  # Any: numpy arrays
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic)


def _cuts(context: Context, one: Prepared) -> list[tuple[float, float, float]]:
    """Return (predicted rise, measured rise, accuracy after recovery) of each random cut."""
    from benchmarks.compression import benchmark_training
    from fettle.compress import sensitivity_analysis

    model = benchmark_training.float_model(one)
    compression = benchmark_training.compression_context(one, model, seed=context.seed)
    sensitivity = sensitivity_analysis.measure_sensitivity(model, compression)
    rng = np.random.default_rng(context.seed)
    found = []
    for _ in range(CUTS):
        # Mild to harsh, short of chance: with every group at risk all cuts lost some 2 nats.
        touched = rng.uniform(0, 0.4)
        shares = {
            group.name: float(rng.choice(SHARES)) if rng.uniform() < touched else 1.0
            for group in sensitivity.groups
        }
        gone = [block.name for block in sensitivity.blocks if rng.uniform() < touched / 2]
        predicted = sensitivity_analysis.predicted_increase(
            sensitivity, shares=shares, removed=gone
        )
        cut = copy.deepcopy(model)
        loss = _cut(cut, compression, shares, gone)
        compression.fit(
            cut, phase="", epochs=RECOVER_EPOCHS, learning_rate=2e-3, temperature=4, alpha=0.9
        )
        found.append((predicted, loss - sensitivity.loss, benchmark_training.accuracy(one, cut)))
    return found


def _cut(
    model: Any,  # Any: nn.Module; torch is imported late
    compression: CompressionContext,
    shares: dict[str, float],
    gone: list[str],
) -> float:
    """Cut `model` in place; return the loss it has before any training."""
    import torch

    from fettle.compress import (
        batchnorm_statistics,
        channel_groups,
        channel_importance,
        removable_blocks,
        sensitivity_analysis,
    )
    from fettle.compress.compression_plan import CompressionPlan
    from fettle.compress.techniques import prune

    groups, _ = channel_groups.find_groups(model, compression.example, compression.protected)
    generator = torch.Generator().manual_seed(compression.seed)
    scores, counts = {}, {}
    for group in groups:
        score = channel_importance.score_channels(group, "l2", generator=generator)
        if score is not None:
            scores[group.name] = score
            counts[group.name] = max(1, int(group.width * shares[group.name] + 0.5))
    plan = prune.cut_groups(model, CompressionPlan(), groups, scores=scores, counts=counts)
    removable_blocks.remove_blocks(model, plan, gone)
    loss = sensitivity_analysis.loss_probe(
        model, compression.batches(), images_max=sensitivity_analysis.IMAGES
    ).loss([""])
    batchnorm_statistics.reestimate(model, compression.batches(), images_max=2048)
    return loss
