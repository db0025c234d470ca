"""Splits: deterministic, stratified, whole groups, the data's own names kept."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.data.image_table import SPLITS
from fettle.data.splitting import SplitTable, assign, assign_fold, order_key
from fettle.errors import DataError

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=150)


@dataclass(frozen=True)
class Data:
    rows: list[str]
    labels: list[str | None]
    groups: list[str | None]
    named: list[str | None]

    def shuffled(self, seed: int) -> Data:
        order = list(range(len(self.rows)))
        random.Random(seed).shuffle(order)
        return Data(*([column[at] for at in order] for column in vars(self).values()))


def divide(data: Data, *, shares: Mapping[str, float] = SHARES, seed: int = 0) -> dict[str, str]:
    found = assign(
        rows=data.rows,
        labels=data.labels,
        groups=data.groups,
        named=data.named,
        shares=shares,
        seed=seed,
    )
    return dict(zip(data.rows, found, strict=True))


def plain(counts: Mapping[str, int], named: Mapping[str, str] | None = None) -> Data:
    rows = [f"{label}/{at:04d}" for label, count in counts.items() for at in range(count)]
    return Data(
        rows,
        [row.split("/")[0] for row in rows],
        [None] * len(rows),
        [(named or {}).get(row) for row in rows],
    )


def grouped(sizes: Mapping[str, Sequence[int]]) -> Data:
    """Give each class groups of its own, of these sizes."""
    lines = [
        (f"{label}/{group}/{at}", label, f"{label}-{group}")
        for label, counts in sizes.items()
        for group, count in enumerate(counts)
        for at in range(count)
    ]
    rows, labels, groups = ([line[k] for line in lines] for k in range(3))
    return Data(rows, list(labels), list(groups), [None] * len(rows))


def by_class(data: Data, splits: Mapping[str, str]) -> dict[str | None, Counter[str]]:
    counts: dict[str | None, Counter[str]] = defaultdict(Counter)
    for row, label in zip(data.rows, data.labels, strict=True):
        counts[label][splits[row]] += 1
    return counts


class_counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1)
shares_drawn = st.tuples(*[st.integers(1, 9)] * 3).map(
    lambda parts: {s: p / sum(parts) for s, p in zip(SPLITS, parts, strict=True)}
)
group_sizes = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1
)
mixed = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([*"pqrstu", None])),
    min_size=1,
    max_size=60,
).map(
    lambda lines: Data(
        [f"row {at}" for at in range(len(lines))],
        [line[0] for line in lines],
        [line[1] for line in lines],
        [None] * len(lines),
    )
)


@given(class_counts, shares_drawn, st.integers(0, 5))
@STEADY
def test_every_class_of_three_images_is_in_every_split(
    counts: dict[str, int], shares: dict[str, float], seed: int
) -> None:
    data = plain(counts)
    for label, found in by_class(data, divide(data, shares=shares, seed=seed)).items():
        assert len(found) == min(3, counts[str(label)])


@given(class_counts, shares_drawn, st.integers(0, 5))
@STEADY
def test_a_class_without_groups_is_at_most_two_images_off_its_shares(
    counts: dict[str, int], shares: dict[str, float], seed: int
) -> None:
    data = plain(counts)
    for label, found in by_class(data, divide(data, shares=shares, seed=seed)).items():
        for split in SPLITS:
            assert abs(found[split] - shares[split] * counts[str(label)]) <= 2


def test_shares_that_divide_evenly_are_met_exactly() -> None:
    data = plain({"a": 100, "b": 30})
    found = by_class(data, divide(data))
    assert found["a"] == {"train": 70, "validation": 10, "test": 20}
    assert found["b"] == {"train": 21, "validation": 3, "test": 6}


@given(mixed, st.integers(0, 5))
@STEADY
def test_no_group_straddles_two_splits(data: Data, seed: int) -> None:
    splits = divide(data, seed=seed)
    homes: dict[str, set[str]] = defaultdict(set)
    for row, group in zip(data.rows, data.groups, strict=True):
        if group is not None:
            homes[group].add(splits[row])
    assert all(len(home) == 1 for home in homes.values())


@given(group_sizes, st.integers(0, 5))
@STEADY
def test_a_class_with_three_groups_is_in_every_split(
    sizes: dict[str, list[int]], seed: int
) -> None:
    data = grouped(sizes)
    for label, found in by_class(data, divide(data, seed=seed)).items():
        assert len(found) == min(3, len(sizes[str(label)]))


def test_many_small_groups_come_near_the_shares() -> None:
    rng = random.Random(4)
    data = grouped({label: [rng.randint(1, 6) for _ in range(60)] for label in "abc"})
    for found in by_class(data, divide(data)).values():
        for split in SPLITS:
            assert found[split] / found.total() == pytest.approx(SHARES[split], abs=0.03)


@given(mixed, st.integers(0, 5), st.integers(0, 1000))
@STEADY
def test_the_order_of_the_rows_plays_no_part(data: Data, seed: int, shuffle: int) -> None:
    assert divide(data.shuffled(shuffle), seed=seed) == divide(data, seed=seed)


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    data = plain({"a": 50, "b": 50})
    assert divide(data, seed=3) == divide(data, seed=3)
    assert divide(data, seed=3) != divide(data, seed=4)
    grouped_data = grouped({"a": [3] * 30, "b": [2] * 30})
    assert divide(grouped_data, seed=3) != divide(grouped_data, seed=4)


def test_a_seed_shuffles_the_table_too() -> None:
    rows = [f"row {at}" for at in range(50)]
    orders = [sorted(rows, key=lambda row, s=seed: order_key(s, row)) for seed in (1, 1, 2)]  # type: ignore[misc] # a default in a lambda
    assert orders[0] == orders[1]
    assert orders[0] not in (orders[2], rows)


def test_a_new_image_moves_few_others() -> None:
    before = divide(plain({"a": 200}))
    after = divide(plain({"a": 201}))
    assert sum(after[row] != split for row, split in before.items()) <= 3


def test_rows_without_a_label_are_divided_as_a_class_of_their_own() -> None:
    data = plain({"a": 30})
    data = Data(data.rows, [None] * 30, data.groups, data.named)
    assert Counter(divide(data).values()) == {"train": 21, "validation": 3, "test": 6}


def test_a_test_split_that_the_data_names_is_kept_and_the_rest_divided() -> None:
    named = {f"a/{at:04d}": "test" for at in range(20)}
    data = plain({"a": 100}, named)
    found = divide(data)
    assert {row for row, split in found.items() if split == "test"} == set(named)
    assert Counter(found.values()) == {"train": 70, "validation": 10, "test": 20}


def test_when_every_row_is_named_validation_comes_out_of_train() -> None:
    named = {f"a/{at:04d}": "test" if at < 20 else "train" for at in range(100)}
    found = divide(plain({"a": 100}, named))
    assert {row for row, split in found.items() if split == "test"} == {
        row for row, split in named.items() if split == "test"
    }
    assert Counter(found.values()) == {"train": 70, "validation": 10, "test": 20}


def test_three_named_splits_are_kept_as_they_are() -> None:
    named = {f"a/{at:04d}": SPLITS[at % 3] for at in range(30)}
    assert divide(plain({"a": 30}, named)) == named


def test_a_row_without_a_split_follows_its_group() -> None:
    data = Data(["r1", "r2", "r3", "r4"], ["a"] * 4, ["g", "g", None, None], ["test", *[None] * 3])
    found = divide(data)
    assert found["r2"] == "test"
    assert {found["r3"], found["r4"]} == {"train", "validation"}


def test_a_group_that_the_data_puts_in_two_splits_is_refused() -> None:
    data = Data(["r1", "r2"], ["a", "a"], ["anna", "anna"], ["train", "test"])
    with pytest.raises(DataError) as caught:
        divide(data)
    assert str(caught.value) == (
        "group 'anna' is in two splits: got train and test; rows of one group stay in one split, "
        "else the test set leaks. Fix: mend the split or the group column."
    )


def test_data_that_names_no_training_rows_is_refused() -> None:
    data = Data(["r1", "r2"], ["a", "b"], [None, None], ["test", "validation"])
    with pytest.raises(DataError) as caught:
        divide(data)
    assert str(caught.value) == (
        "the data names a split for every row, and none is train: got test, validation; training "
        "needs rows. Fix: name train for some rows, or leave their split empty."
    )


def test_a_row_that_no_split_is_left_for_is_refused() -> None:
    data = Data(["r1", "r2", "r3", "r4"], ["a"] * 4, [None] * 4, [*SPLITS, None])
    with pytest.raises(DataError) as caught:
        divide(data)
    assert str(caught.value) == (
        "row 'r4' has no split, while others name all three; name a split for every row, or leave "
        "one split out: it is filled by the rest. Fix: fill the split column."
    )


def fold(data: Data, number: int, of: int, seed: int = 0) -> dict[str, str]:
    table = SplitTable(data.rows, data.labels, data.groups)
    found = assign_fold(table, SHARES, number=number, of=of, seed=seed)
    return dict(zip(data.rows, found, strict=True))


@pytest.mark.parametrize(
    "data",
    [plain({"a": 50, "b": 31, "c": 7}), grouped({"a": [5, 3, 3, 2, 2, 1], "b": [4, 4, 2, 2, 1]})],
    ids=["rows", "groups"],
)
def test_the_folds_test_every_row_once(data: Data) -> None:
    tested = Counter(
        row
        for number in range(1, 6)
        for row, split in fold(data, number, 5).items()
        if split == "test"
    )
    assert tested == Counter(data.rows)


def test_a_fold_keeps_classes_in_proportion_and_the_others_shares() -> None:
    found = fold(plain({"a": 500, "b": 300}), 2, 5)
    counts = Counter((row[0], split) for row, split in found.items())
    assert counts == {
        ("a", "test"): 100, ("a", "train"): 350, ("a", "validation"): 50,
        ("b", "test"): 60, ("b", "train"): 210, ("b", "validation"): 30,
    }  # fmt: skip


def test_a_group_is_never_in_two_splits_of_a_fold() -> None:
    data = grouped({"a": [5, 3, 3, 2, 2, 1], "b": [4, 4, 2, 2, 1]})
    homes: defaultdict[str, set[str]] = defaultdict(set)
    splits = fold(data, 1, 3)
    for row, group in zip(data.rows, data.groups, strict=True):
        homes[str(group)].add(splits[row])
    assert all(len(home) == 1 for home in homes.values())


def test_a_fold_does_not_depend_on_the_order_of_the_rows() -> None:
    data = plain({"a": 40, "b": 33})
    assert fold(data, 3, 4) == fold(data.shuffled(1), 3, 4)
