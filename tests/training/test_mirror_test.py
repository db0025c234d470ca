from __future__ import annotations

import numpy as np

from fettle.training import mirror_test

CLASSES, FEATURES = 5, 12


def features(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres [K, D], features [N, D], labels [N] of classes that are far apart."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES)) * 3
    draw = np.random.default_rng(seed)
    labels = draw.integers(CLASSES, size=count)
    return centres, centres[labels] + draw.normal(size=(count, FEATURES)), labels


def asked(upright: np.ndarray, mirrored: np.ndarray, labels: np.ndarray) -> mirror_test.Mirrored:
    return mirror_test.test(
        upright.astype(np.float32), mirrored.astype(np.float32), labels, strength=0.1
    )


def test_flips_are_allowed_where_a_mirrored_image_looks_like_another_of_its_class() -> None:
    centres, upright, labels = features(400, seed=1)
    other = centres[labels] + np.random.default_rng(2).normal(size=upright.shape)
    found = asked(upright, other, labels)
    assert found.allowed
    assert abs(found.upright - found.mirrored) < 0.03
    assert found.n == 400


def test_flips_are_refused_where_one_class_becomes_another() -> None:
    """A b mirrored is a d: two classes of five, the others do not care."""
    centres, upright, labels = features(400, seed=1)
    turned = labels.copy()
    turned[labels == 3], turned[labels == 4] = 4, 3
    mirrored = centres[turned] + np.random.default_rng(2).normal(size=upright.shape)
    found = asked(upright, mirrored, labels)
    assert not found.allowed
    assert found.worst in (3, 4)
    assert found.mirrored < found.upright - 0.3


def test_one_class_of_many_images_is_enough_to_refuse() -> None:
    centres, upright, labels = features(1000, seed=1)
    turned = np.where(labels == 2, 0, labels)
    mirrored = centres[turned] + np.random.default_rng(2).normal(size=upright.shape)
    assert asked(upright, mirrored, labels).worst == 2


def test_chance_alone_seldom_refuses() -> None:
    refused = 0
    for seed in range(20):
        centres, upright, labels = features(200, seed=seed)
        noise = np.random.default_rng(seed + 100).normal(size=upright.shape)
        refused += not asked(upright * 0.4, (centres[labels] + noise) * 0.4, labels).allowed
    assert refused <= 1
