from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fettle.data import choice_images
from fettle.data.split_reader import Images
from fettle.errors import DataError


def images(counts: dict[str, int], *, per_group: int = 0) -> Images:
    """Images of one pixel, `counts` a class; so many neighbours of all classes share a group."""
    classes = sorted(counts)
    labels = [classes.index(name) for name in classes for _ in range(counts[name])]
    order = np.random.default_rng(0).permutation(len(labels))
    groups = [f"g{at // per_group}" if per_group else None for at in range(len(labels))]
    return Images(
        pixels=order.astype(np.uint8).reshape(-1, 1, 1, 1),
        labels=np.asarray(labels, dtype=np.int64)[order],
        ids=[f"row {at}" for at in range(len(labels))],
        classes=classes,
        groups=groups,
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(2, 120), min_size=2, max_size=6),
    st.floats(0.01, 0.5),
    st.integers(0, 5),
    st.integers(0, 99),
)
def test_every_image_is_learnt_from_or_chosen_by_never_both(
    counts: list[int], fraction: float, per_group: int, seed: int
) -> None:
    train = images({f"class {at}": count for at, count in enumerate(counts)}, per_group=per_group)
    assume(per_group == 0 or len(set(train.groups)) >= 8)
    learnt, choice = choice_images.hold_out(train, fraction=fraction, seed=seed)
    assert sorted([*learnt.ids, *choice.ids]) == sorted(train.ids)
    assert learnt.ids
    assert choice.ids
    if per_group:
        assert not set(learnt.groups) & set(choice.groups), "a person is on one side only"
    for part in (learnt, choice):
        at = {row: index for index, row in enumerate(train.ids)}
        rows = [at[row] for row in part.ids]
        assert (part.labels == train.labels[rows]).all()
        assert (part.pixels == train.pixels[rows]).all()


def test_images_of_one_group_cannot_be_divided() -> None:
    with pytest.raises(DataError) as caught:
        choice_images.hold_out(images({"a": 4, "b": 4}, per_group=8), fraction=0.1, seed=1)
    assert str(caught.value) == (
        "the training images cannot be divided into those to learn from and those to choose by: "
        "got 8 images, 1 groups; images of one group stay together, and each part needs some. Fix: "
        "add images or groups, or set finetune.choice_fraction to 0 and what is auto in the "
        "section finetune to a value."
    )


def test_each_class_gives_its_share() -> None:
    train = images({"few": 100, "many": 900})
    _, choice = choice_images.hold_out(train, fraction=0.1, seed=20)
    assert Counter(choice.labels.tolist()) == {0: 10, 1: 90}


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [
        (100, 0.1, 25),  # a quarter at most, though 40 choose better
        (200, 0.1, 40),
        (3000, 0.1, 300),
        (50_000, 0.1, 1000),  # more choose no better
    ],
)
def test_few_images_give_more_of_them_and_many_no_more_than_can_tell(
    count: int, fraction: float, expected: int
) -> None:
    train = images({"a": count // 2, "b": count - count // 2})
    _, choice = choice_images.hold_out(train, fraction=fraction, seed=20)
    assert len(choice.ids) == pytest.approx(expected, abs=2)


def test_the_same_rows_and_seed_give_the_same_images() -> None:
    train = images({"a": 60, "b": 60})
    first, second = (choice_images.hold_out(train, fraction=0.2, seed=4)[1] for _ in range(2))
    other = choice_images.hold_out(train, fraction=0.2, seed=5)[1]
    assert first.ids == second.ids
    assert first.ids != other.ids
