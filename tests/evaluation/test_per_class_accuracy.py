from __future__ import annotations

import numpy as np

from fettle.evaluation import per_class_accuracy

LABELS = np.repeat([0, 1], 50)


def logits(wrong: dict[int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Answer rightly but on the first `wrong[class]` images of each class."""
    answers = LABELS.copy()
    for label, count in wrong.items():
        answers[np.flatnonzero(label == LABELS)[:count]] = 1 - label
    return np.eye(3)[answers]


def test_each_class_is_paired_on_its_own_images() -> None:
    drops = per_class_accuracy.recall_drops(
        logits({}), logits({0: 10}), LABELS, ["cat", "dog", "none"]
    )
    assert list(drops) == ["cat", "dog"]  # no image of the third
    assert (drops["cat"].value, drops["cat"].n) == (0.2, 50)
    assert drops["dog"].value == 0


def test_a_class_beyond_the_bound_is_named_though_the_mean_drops_little() -> None:
    drops = per_class_accuracy.recall_drops(logits({}), logits({0: 10}), LABELS, ["cat", "dog"])
    assert per_class_accuracy.classes_over_limit(drops, 0.15) == ["cat"]
    assert per_class_accuracy.classes_over_limit(drops, 0.2) == []


def test_a_loss_that_chance_explains_is_no_loss() -> None:
    # two lost and one won of fifty: 2 points, and the interval holds 0
    drops = per_class_accuracy.recall_drops(
        logits({0: 1, 1: 2}), logits({0: 3}), LABELS, ["cat", "dog"]
    )
    assert drops["cat"].value == 0.04
    assert per_class_accuracy.classes_over_limit(drops, 0.01) == []
