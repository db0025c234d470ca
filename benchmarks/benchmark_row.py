"""Benchmark row: one figure of a benchmark, what it is held to, and where it was taken.

Every row bears its own origin: CPU model, cores, versions, commit, date and command. The rules are
the type's own, so that no file can hold a row that breaks them: a goal is judged from two
measurements up (one alone bears none), and a figure that is missing says why. A row that is
measured again keeps its earlier runs in `history`, oldest first.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fettle.measure import Measure

FROZEN = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
NOT_MEASURED = "NOT_MEASURED"


class Origin(BaseModel):
    """Where and of what a figure was taken; None is "not known", never a guess."""

    model_config = FROZEN

    cpu_model: str | None = None
    cpu_flags: tuple[str, ...] | None = None  # those that change which kernels run
    cores: int | None = None  # that the process might use
    platform: str | None = None  # "Linux x86_64"
    versions: Mapping[str, str] | None = None  # Python's and the packages'
    commit: str | None = None  # of the code that ran; "-dirty" where files differed from it
    # ISO 8601: when the command began; of a row with `recorded_in`, the latest day it can be
    date: str | None = None
    command: str | None = None
    # the commit that the figure first stands in, of rows older than this type: they tell no commit
    recorded_in: str | None = None


class BenchmarkRow(BaseModel):
    """One figure: `low` and `high` are the smallest and largest of n, or a stated interval.

    `n` counts measurements, `seeds` are what they drew with: () for no draw, None for not known.
    `met` says whether the goal holds, None where it is not judged: no goal, or n below two. A
    figure that is missing has no value and a `reason`; with n = 0 it is NOT_MEASURED.

    Raises ValidationError (a ValueError) for a row that breaks one of these rules.
    """

    model_config = FROZEN

    what: str = Field(min_length=1)
    value: float | None
    low: float | None
    high: float | None
    n: int = Field(ge=0)
    seeds: tuple[int, ...] | None
    unit: str
    goal: str  # empty: none
    met: bool | None
    note: str = ""  # where a goal is missed: what was tried
    reason: str | None = None
    origin: Origin = Origin()
    history: tuple[BenchmarkRow, ...] = ()

    @property
    def verdict(self) -> str:
        """Say what came of the goal: "met", "missed", why it is not judged; "" without one."""
        if self.n == 0:
            return f"{NOT_MEASURED}: {self.reason}"
        if not self.goal:
            return ""
        if self.met is None:
            return f"not judged: n = {self.n}"
        return "met" if self.met else "missed"

    @model_validator(mode="after")
    def _rules(self) -> Self:
        ends = (self.low, self.high)
        broken = {
            "a row without a value gives its reason, one with a value has none": (
                (self.value is None) != bool(self.reason)
            ),
            "a row without a value has no low and no high": (
                self.value is None and ends != (None, None)
            ),
            "a value comes of one measurement at least": self.value is not None and self.n == 0,
            "a value lies between low and high": self.value is not None
            and not _at(self.low, self.value) <= self.value <= _at(self.high, self.value),
            "a goal is judged from n = 2 up: with fewer, met is None": (
                self.met is not None and self.n < 2
            ),
            "without a goal, met is None": self.met is not None and not self.goal,
            "with a goal and n of 2 and more, met is true or false": (
                self.met is None and bool(self.goal) and self.n >= 2
            ),
            "a goal is not met without a value": self.value is None and self.met is True,
            "an earlier run is of the same figure, and has no history of its own": any(
                row.what != self.what or row.history for row in self.history
            ),
        }
        if wrong := [rule for rule, is_broken in broken.items() if is_broken]:
            raise ValueError(f"benchmark row {self.what!r}: {'; '.join(wrong)}")
        return self

    def at(self, origin: Origin) -> BenchmarkRow:
        """Return the row with its origin."""
        return self.model_copy(update={"origin": origin})

    def after(self, earlier: BenchmarkRow) -> BenchmarkRow:
        """Return the row with an earlier run of it, and that one's own history, before its own."""
        kept = (*earlier.history, earlier.model_copy(update={"history": ()}), *self.history)
        return BenchmarkRow.model_validate({**dict(self), "history": kept})


def _at(end: float | None, value: float) -> float:
    return value if end is None else end


def measured(
    what: str,
    value: float,
    *,
    unit: str,
    n: int,
    seeds: Sequence[int] | None,
    low: float | None = None,
    high: float | None = None,
    goal: str = "",
    holds: bool | None = None,
    note: str = "",
) -> BenchmarkRow:
    """Make the row of a figure; `holds` tells whether its goal does, and counts where n allows."""
    return BenchmarkRow(
        what=what,
        value=value,
        low=low,
        high=high,
        n=n,
        seeds=None if seeds is None else tuple(seeds),
        unit=unit,
        goal=goal,
        met=holds if goal and n >= 2 else None,
        note=note,
    )


def without_value(
    what: str, unit: str, goal: str, *, n: int, seeds: Sequence[int], reason: str
) -> BenchmarkRow:
    """Make the row of a figure that n measurements did not reach: its goal is missed."""
    return BenchmarkRow(
        what=what,
        value=None,
        low=None,
        high=None,
        n=n,
        seeds=tuple(seeds),
        unit=unit,
        goal=goal,
        met=False if goal and n >= 2 else None,
        reason=reason,
    )


def not_measured(what: str, unit: str, goal: str, *, why: str) -> BenchmarkRow:
    """Make the row of a figure that cannot be taken here."""
    return without_value(what, unit, goal, n=0, seeds=(), reason=why)


def of_times(what: str, seconds: Sequence[float], at_most: float) -> BenchmarkRow:
    """Make a row of the median of several times, with a goal that it must not exceed."""
    median = statistics.median(seconds)
    return measured(
        what,
        median,
        low=min(seconds),
        high=max(seconds),
        unit="s",
        n=len(seconds),
        seeds=(),
        goal=f"<= {at_most:g}",
        holds=median <= at_most,
    )


def of_measure(
    what: str,
    measure: Measure,
    *,
    seeds: Sequence[int],
    goal: str = "",
    holds: bool | None = None,
    note: str = "",
) -> BenchmarkRow:
    """Make a row of a measured value with its interval, where it has one."""
    return measured(
        what,
        measure.value,
        low=measure.low,
        high=measure.high,
        unit=measure.unit,
        n=measure.n,
        seeds=seeds,
        goal=goal,
        holds=holds,
        note=note,
    )
