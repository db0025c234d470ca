"""Search result: the trials, which is best, how the search ended, and what its clock took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fettle.recipes.search.bracketing import Standing
from fettle.recipes.search.pareto_front import front
from fettle.recipes.search.trial import Trial

Ended = Literal["settled", "evaluations", "steps", "clock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Search result: all trials in order (the root first), the best one's number, and whether the
    goal is met.

    `standings` are those of the trials. `ended`: settled (nothing promised more), evaluations or
    steps (the bounds), or clock (truncated); `cut` says what the clock took, a line each.
    """

    trials: tuple[Trial, ...]
    standings: tuple[Standing, ...]
    best: int
    met: bool
    ended: Ended
    cut: tuple[str, ...] = ()

    @property
    def truncated(self) -> bool:
        """Tell whether the clock took anything."""
        return self.ended == "clock" or bool(self.cut)

    @property
    def front(self) -> list[int]:
        """The numbers of the trials that none beats in value and drop."""
        whole = [entry for entry in self.trials if not entry.result.refused]
        points = [(entry.result.value, entry.result.drop) for entry in whole]
        return [whole[position].number for position in front(points)]
