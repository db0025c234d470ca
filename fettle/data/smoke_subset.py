"""Smoke subset: a few images of a data set, each class and split in its share (ingest.limit).

The split is that of the whole set, so a larger subset holds a smaller one but for rounding, and no
image changes its split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fettle.data.splitting import order_key
from fettle.errors import DataError


def draw(
    *,
    rows: Sequence[str],
    labels: Sequence[str | None],
    splits: Sequence[str],
    limit: int,
    seed: int,
) -> set[str]:
    """Draw `limit` rows, every class in every split that it has; raises DataError for too few."""
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row, label, split in zip(rows, labels, splits, strict=True):
        if label is not None:
            cells[label, split].append(row)
    if limit < len(cells):
        classes = len({label for label, _ in cells})
        raise DataError(
            "a smoke run on so few images leaves a class out",
            got=f"{limit} images (ingest.limit)",
            rule=f"each of {classes} classes needs one in each split that it has: {len(cells)}",
            fix=f"fettle run --limit {10 * len(cells)}",
        )
    counts = _counts({cell: len(found) for cell, found in cells.items()}, limit)
    return {
        row
        for cell, found in cells.items()
        for row in sorted(found, key=lambda row: order_key(seed, row))[: counts[cell]]
    }


def _counts(sizes: dict[tuple[str, str], int], limit: int) -> dict[tuple[str, str], int]:
    """Share `limit` among the cells by their sizes: one each, the rest by largest remainder."""
    whole = sum(sizes.values())
    if limit >= whole:
        return sizes
    goals = {cell: limit * size / whole for cell, size in sizes.items()}
    counts = {cell: max(1, int(goal)) for cell, goal in goals.items()}
    while (missing := limit - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        open_ = [c for c in sizes if (counts[c] < sizes[c] if step > 0 else counts[c] > 1)]
        nearest = max(open_, key=lambda c: (step * (goals[c] - counts[c]), c))
        counts[nearest] += step
    return counts
