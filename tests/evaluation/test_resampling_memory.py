"""The bootstrap's draws: the same however many lie in memory at once."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fettle.evaluation import accuracy_statistics


@pytest.mark.parametrize("at_once", [1000, 300, 7])
def test_the_draws_do_not_depend_on_how_many_are_made_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    draw = np.random.default_rng(6)
    labels = draw.integers(0, 4, 90)
    before, after = (draw.normal(size=(90, 4)) + np.eye(4)[labels] for _ in range(2))

    def drawn() -> tuple[object, ...]:
        return (
            accuracy_statistics.macro_f1(before, labels),
            accuracy_statistics.drop("worst_recall", before, after, labels),
            *accuracy_statistics.drawn_drops("macro_f1", before, after, labels),
        )

    usual = drawn()
    assert len(usual) == 2 + accuracy_statistics.RESAMPLES
    monkeypatch.setattr(accuracy_statistics, "RESAMPLES_AT_ONCE", at_once)
    assert drawn() == usual


def test_a_kind_an_image_does_not_take_a_thousand_times_the_images() -> None:
    """Of 3,000 wrong answers to 300 classes nearly every one is of its own kind: [1000, 3000]
    doubles are 23 MiB, and were there twice.
    """
    draw = np.random.default_rng(7)
    labels = draw.integers(0, 300, 3000)
    logits = draw.normal(size=(3000, 300)).astype(np.float32)
    tracemalloc.start()
    try:
        accuracy_statistics.macro_f1(logits, labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30 * 2**20
