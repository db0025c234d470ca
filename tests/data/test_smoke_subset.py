"""A smoke run's images: so many, every class and split in its share, always the same."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.data import smoke_subset
from fettle.errors import DataError

SIZES = {("a", "train"): 60, ("a", "validation"): 10, ("a", "test"): 30, ("b", "train"): 5,
         ("b", "validation"): 1, ("b", "test"): 4}  # fmt: skip
ROWS = [
    (f"{label}/{split}/{at}", label, split)
    for (label, split), count in SIZES.items()
    for at in range(count)
]


def drawn(limit: int, seed: int = 1) -> set[str]:
    rows, labels, splits = zip(*ROWS, strict=True)
    return smoke_subset.draw(rows=rows, labels=labels, splits=splits, limit=limit, seed=seed)


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(6, 200))
def test_it_takes_so_many_and_every_class_in_every_split(limit: int) -> None:
    taken = drawn(limit)
    assert len(taken) == min(limit, len(ROWS))
    counts = Counter(tuple(row.split("/")[:2]) for row in taken)
    assert set(counts) == set(SIZES)
    assert all(counts[cell] <= SIZES[cell] for cell in SIZES)


def test_each_class_and_split_has_its_share() -> None:
    counts = Counter(tuple(row.split("/")[:2]) for row in drawn(55))
    assert counts == {cell: pytest.approx(size / 2, abs=1) for cell, size in SIZES.items()}


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    assert drawn(20) == drawn(20)
    assert drawn(20) != drawn(20, seed=2)


def test_fewer_images_than_classes_and_splits_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        drawn(5)
    assert str(caught.value) == (
        "a smoke run on so few images leaves a class out: got 5 images (ingest.limit); each of 2 "
        "classes needs one in each split that it has: 6. Fix: fettle run --limit 60."
    )
