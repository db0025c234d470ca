"""Cluster effect (design effect): by how much do an arm's bad requests come in clusters?

The variance of the bad requests a block, over that of a coin of their own rate (Kish 1965), from
the worst of several block sizes. The fast path to a roll-back (two_sample_test.py) divides its
evidence by it: an e-process to the power 1/c, c >= 1 known before the request, stays one (Jensen).
Shared clusters count too, since one arm alone cannot tell them apart: there the fast path is slow,
and span_test.py decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.rollout.promotion.e_process import Bools, Floats, Rows, sizes

SIZES = np.array([16, 128, 1024])  # champion requests a block
# A coin's own blocks show 1 within this many standard errors, sqrt(2/blocks): no effect is taken
# from less. Three scales are looked at.
ERRORS_OFF = 2.5
BLOCKS_LEAST = 8
# While too little is known of the champion: bad requests are taken to come in threes.
UNKNOWN_EFFECT, UNKNOWN_REQUESTS = 3.0, 2048


@dataclass
class Clusters:
    """Sums over blocks, [rows, scales]; `effect` is what follows from them, [rows]."""

    n: Floats  # [rows] champion requests in the longest block under way
    bad: Floats
    blocks: Floats
    total: Floats
    squares: Floats
    worst: Floats  # [rows] the largest share in any of the longest blocks
    effect: Floats  # [rows]


def start(rows: int = 1, known: Floats | None = None, worst: Floats | None = None) -> Clusters:
    """Return the state before any request, or after those of `known`: [rows, scales, sums]."""
    scales = len(SIZES)
    sums = sizes(rows, scales, 3) if known is None else known.copy()
    made = Clusters(
        n=sizes(rows),
        bad=sizes(rows, scales),
        blocks=sums[:, :, 0].copy(),
        total=sums[:, :, 1].copy(),
        squares=sums[:, :, 2].copy(),
        worst=sizes(rows) if worst is None else worst.copy(),
        effect=np.full(rows, UNKNOWN_EFFECT),
    )
    _settle(made, np.arange(rows))
    return made


def update(state: Clusters, bad: Bools, champion: Bools) -> None:
    """Take one request a row, arrays [rows]; only the champion's count."""
    state.n += champion
    hits = np.flatnonzero(champion & bad)
    if hits.size:
        state.bad[hits] += 1
    full = np.flatnonzero(champion & (state.n % SIZES[0] == 0))
    if full.size:
        _close(state, full)


def _close(state: Clusters, full: Rows) -> None:
    """Close the blocks of these rows that are full: the shortest, and each that ends with it."""
    for scale, size in enumerate(SIZES):
        at = full[state.n[full] % size == 0]
        found = state.bad[at, scale]
        state.blocks[at, scale] += 1
        state.total[at, scale] += found
        state.squares[at, scale] += found * found
        state.bad[at, scale] = 0
    state.worst[at] = np.maximum(state.worst[at], found / SIZES[-1])
    state.n[at] = 0
    _settle(state, full)


def of_blocks(bad: Bools) -> tuple[Floats, Floats]:
    """Return the sums [rows, scales, 3] and the worst share [rows] of whole blocks [rows, n]."""
    rows, n = bad.shape
    sums = []
    worst = sizes(rows)
    for size in SIZES:
        whole = n // size
        found = bad[:, : whole * size].reshape(rows, whole, size).sum(axis=2).astype(float)
        sums.append(np.stack([np.full(rows, float(whole)), found.sum(1), (found**2).sum(1)], 1))
        if whole:
            worst = found.max(axis=1) / size
    return np.stack(sums, axis=1), worst


def _settle(state: Clusters, at: Rows) -> None:
    """Say what the sums of these rows tell."""
    blocks = state.blocks[at]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = state.total[at] / blocks
        variance = (state.squares[at] - blocks * mean * mean) / (blocks - 1)
        found = variance / (mean * (1 - mean / SIZES))
        tells = (blocks >= BLOCKS_LEAST) & (found > 1 + ERRORS_OFF * np.sqrt(2 / blocks))
    effect = np.where(tells, found, 1.0).max(axis=1)
    few = blocks[:, 0] * SIZES[0] < UNKNOWN_REQUESTS
    state.effect[at] = np.where(few, np.maximum(effect, UNKNOWN_EFFECT), effect)
