"""Divide rows into train, validation and test: the same rows and seed give the same split.

The order of the rows plays no part: each row is placed by the hash of the seed and its id, so a
new image moves few others. Every class is divided by the shares; rows of one group stay
together. Groups are placed greedily, largest first, where they bring the class counts nearest
to their goals (the idea of scikit-learn's StratifiedGroupKFold, here for unequal shares).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fettle.data.image_table import SPLITS
from fettle.errors import DataError


def order_key(seed: int, row: str) -> bytes:
    """Return a row's place in the shuffled table: sort by it."""
    return _key(seed, "order", row)


def _key(seed: int, purpose: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{purpose}\0{name}".encode()).digest()


@dataclass(slots=True)
class _Pool:
    """The rows to place, the splits open to them, and how full those are.

    `filled` and `goals` are counts of rows by (class, split).
    """

    open: tuple[str, ...]
    goals: dict[tuple[str, str], float]
    filled: Counter[tuple[str, str]] = field(default_factory=Counter)


def assign(
    *,
    rows: Sequence[str],
    labels: Sequence[str | None],
    groups: Sequence[str | None],
    named: Sequence[str | None],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Return a split for each row; `rows` are unique.

    A split in `named` is kept. The rows without one are divided among the splits that no row
    names; when every row has one, those named train are divided among train and what nobody
    names. A class has a row in every open split if it has as many rows (or, where groups do not
    mix classes, groups) as there are open splits.

    Raises DataError when the names put one group in two splits, or leave a split empty.
    """
    placed, open_splits = _keep_named(rows, groups, named)
    return _divide_rows(SplitTable(rows, labels, groups), placed, open_splits, shares, seed)


@dataclass(frozen=True, slots=True)
class SplitTable:
    """The columns that a division looks at, a row each."""

    rows: Sequence[str]
    labels: Sequence[str | None]
    groups: Sequence[str | None]

    def take(self, places: Sequence[int]) -> SplitTable:
        """Return these rows alone."""
        return SplitTable(
            [self.rows[at] for at in places],
            [self.labels[at] for at in places],
            [self.groups[at] for at in places],
        )


def assign_fold(
    table: SplitTable, shares: Mapping[str, float], *, number: int, of: int, seed: int
) -> list[str]:
    """Return a split for each row, the fold `number` (from 1) of `of` being the test set.

    The folds are disjoint, cover all rows, and do not depend on which is asked for: each is cut
    from what the folds before it left. Classes and groups are treated as in `assign`. The other
    rows are divided by the shares of train and validation.
    """
    left = list(range(len(table.rows)))
    for fold in range(1, number + 1):
        cut = {"test": 1.0, "rest": float(of - fold)}
        open_ = ("rest", "test") if fold < of else ("test",)
        found = _divide_rows(table.take(left), [None] * len(left), open_, cut, seed)
        tested = [at for at, split in zip(left, found, strict=True) if split == "test"]
        left = [at for at, split in zip(left, found, strict=True) if split == "rest"]
    result: list[str] = ["test"] * len(table.rows)
    others = sorted(set(range(len(table.rows))) - set(tested))
    taught = _divide_rows(
        table.take(others), [None] * len(others), ("train", "validation"), shares, seed
    )
    for at, split in zip(others, taught, strict=True):
        result[at] = split
    return result


def _divide_rows(
    table: SplitTable,
    placed: Sequence[str | None],
    open_splits: tuple[str, ...],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Divide the rows that are not placed among the open splits."""
    rows, groups = table.rows, table.groups
    waiting = [index for index, split in enumerate(placed) if split is None]
    classes = [label or "" for label in table.labels]
    total = sum(shares[split] for split in open_splits)
    sizes = Counter(classes[at] for at in waiting)
    goals = {(c, s): sizes[c] * shares[s] / total for c in sizes for s in open_splits}
    pool = _Pool(open_splits, goals)
    blocks: dict[str, list[int]] = {}
    singles: dict[str, list[int]] = {}
    for at in waiting:
        group = groups[at]
        if group is None:
            singles.setdefault(classes[at], []).append(at)
        else:
            blocks.setdefault(group, []).append(at)
    result = list(placed)
    spare = {c: len(members) for c, members in singles.items()}
    counted = {
        group: Counter(classes[at] for at in members)
        for group, members in sorted(
            blocks.items(), key=lambda one: (-len(one[1]), _key(seed, "group", one[0]))
        )
    }
    for group, split in _place_groups(pool, counted, spare).items():
        for at in blocks[group]:
            result[at] = split
    for label, members in sorted(singles.items()):
        members.sort(key=lambda at: _key(seed, "split", rows[at]))
        counts = _divide(pool, label, len(members))
        cut = [split for split in reversed(open_splits) for _ in range(counts[split])]
        for at, split in zip(members, cut, strict=True):
            result[at] = split
    return [str(split) for split in result]


def _keep_named(
    rows: Sequence[str], groups: Sequence[str | None], named: Sequence[str | None]
) -> tuple[list[str | None], tuple[str, ...]]:
    """Return the splits that stand already, and the splits open to the other rows."""
    missing = tuple(s for s in SPLITS if s not in set(named))
    unnamed = any(split is None for split in named)
    kept = list(named)
    if not unnamed and missing:
        if "train" in missing:
            raise DataError(
                "the data names a split for every row, and none is train",
                got=f"{', '.join(sorted({str(s) for s in named}))}",
                rule="training needs rows",
                fix="name train for some rows, or leave their split empty",
            )
        missing = ("train", *missing)
        kept = [None if split == "train" else split for split in named]
    if unnamed and not missing:
        at = next(index for index, split in enumerate(named) if split is None)
        raise DataError(
            f"row '{rows[at]}' has no split, while others name all three",
            rule="name a split for every row, or leave one split out: it is filled by the rest",
            fix="fill the split column",
        )
    home: dict[str, str] = {}
    for group, split in zip(groups, named, strict=True):
        if group is not None and split is not None and home.setdefault(group, split) != split:
            raise DataError(
                f"group '{group}' is in two splits",
                got=f"{home[group]} and {split}",
                rule="rows of one group stay in one split, else the test set leaks",
                fix="mend the split or the group column",
            )
    if unnamed:  # a row without a split follows its group
        kept = [
            split if split is not None or group is None else home.get(group)
            for group, split in zip(groups, kept, strict=True)
        ]
    return kept, missing


def _place_groups(
    pool: _Pool, counted: Mapping[str, Counter[str]], spare: Mapping[str, int]
) -> dict[str, str]:
    """Place each group (its rows by class, in placing order); `spare` counts rows without one."""
    left = Counter(spare)
    for rows in counted.values():
        left.update(rows.keys())
    placed: dict[str, str] = {}
    for group, rows in counted.items():
        best = min(pool.open, key=lambda split: _cost(pool, rows, split, left))
        placed[group] = best
        left.subtract(rows.keys())
        for label, count in rows.items():
            pool.filled[label, best] += count
    return placed


def _cost(
    pool: _Pool, rows: Counter[str], split: str, left: Mapping[str, int]
) -> tuple[int, float]:
    """Rate a split for a group, lower is better.

    First by the classes that would else never get there, then by how far the squared error of the
    class counts, relative to the size of the class, would grow.
    """
    urgent, change = 0, 0.0
    for label, count in sorted(rows.items()):
        lacking = [s for s in pool.open if not pool.filled[label, s]]
        if split in lacking and left[label] <= len(lacking):
            urgent += 1
        size = sum(pool.goals[label, s] for s in pool.open)
        over = pool.filled[label, split] - pool.goals[label, split]
        change += count * (2 * over + count) / size**2
    return -urgent, change


def _divide(pool: _Pool, label: str, count: int) -> dict[str, int]:
    """Divide `count` rows of a class without groups: by largest remainder, then none left empty."""
    lack = {s: max(0.0, pool.goals[label, s] - pool.filled[label, s]) for s in pool.open}
    exact = {s: count * lack[s] / sum(lack.values()) for s in pool.open}
    counts = {s: int(exact[s] + 1e-9) for s in pool.open}  # 1e-9: 30 * 0.1 is just below 3
    by_remainder = sorted(pool.open, key=lambda s: (round(counts[s] - exact[s], 9), counts[s]))
    for split in by_remainder[: count - sum(counts.values())]:
        counts[split] += 1
    for split in pool.open:
        if counts[split] + pool.filled[label, split]:
            continue
        donor = max(pool.open, key=lambda s: min(counts[s], counts[s] + pool.filled[label, s] - 1))
        if counts[donor] and counts[donor] + pool.filled[label, donor] > 1:
            counts[split] += 1
            counts[donor] -= 1
    return counts
