"""Per-class accuracy: a model whose mean passes may have given one class up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fettle.evaluation import accuracy_statistics
from fettle.evaluation.accuracy_statistics import Floats, Labels
from fettle.measure import Measure


def recall_drops(
    before: Floats, after: Floats, labels: Labels, classes: Sequence[str]
) -> dict[str, Measure]:
    """Return the recall each class lost, paired on its images, with Tango's 95 % interval.

    `before` and `after` are logits [n, classes] of the same images. A class without an image has
    no entry.
    """
    drops = {}
    for index, name in enumerate(classes):
        rows = np.flatnonzero(labels == index)
        if rows.size:
            right = [
                accuracy_statistics.correct(logits[rows], labels[rows])
                for logits in (before, after)
            ]
            drops[name] = accuracy_statistics.paired_drop(*right)
    return drops


def classes_over_limit(drops: Mapping[str, Measure], drop_max: float) -> list[str]:
    """Name the classes that lost more than `drop_max`, beyond chance (the interval is above 0).

    The worst first. Without the second condition one image of a class of ten is a tenth.
    """
    gone = [
        name for name, drop in drops.items() if drop.value > drop_max and drop.low and drop.low > 0
    ]
    return sorted(gone, key=lambda name: (-drops[name].value, name))
