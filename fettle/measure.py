"""Hold a number with its unit, sample size and interval: no bare float crosses a module border."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypedDict


class MeasureDict(TypedDict):
    """The JSON form of a Measure."""

    value: float
    unit: str
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measured value; `low` and `high` bound its 95 % interval, None where none was taken.

    Raises ValueError when unit is empty, n < 1, a number is not finite, or value lies outside
    [low, high]: such a metric cannot be built.
    """

    value: float
    unit: str
    n: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not self.unit:
            raise ValueError("a Measure needs a unit ('1' for a ratio or a fraction)")
        if self.n < 1:
            raise ValueError(f"a Measure needs n >= 1, got {self.n}")
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends or none")
        ends = [self.value] + [end for end in (self.low, self.high) if end is not None]
        if not all(math.isfinite(end) for end in ends):
            raise ValueError(f"a Measure must be finite, got {ends}")
        if (
            self.low is not None
            and self.high is not None
            and not (self.low <= self.value <= self.high)
        ):
            raise ValueError(f"{self.value} lies outside its interval [{self.low}, {self.high}]")

    def to_dict(self) -> MeasureDict:
        """Return the JSON form."""
        return MeasureDict(value=self.value, unit=self.unit, n=self.n, low=self.low, high=self.high)

    @classmethod
    def from_dict(cls, data: MeasureDict) -> Measure:
        """Read the JSON form back."""
        return cls(**data)
