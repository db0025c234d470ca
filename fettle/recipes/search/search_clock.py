"""Search clock: what is left of search.wall_clock_max_s, and what a training will take of it.

Every training asks it at each step. What must still run after the last of them (the chosen model
is loaded, judged and exported) is taken off at first. From the seconds that epochs took it says
whether a move fits, and to how many epochs a final training must be cut.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from fettle.recipes.search.trial import Move, Recipe, Trial, key

CLOSING_MAX = 0.5  # of the limit; a limit shorter than the closing itself still tries something
ESTIMATE_MARGIN = 1.1  # epochs of one model differ by less on an idle machine; felt right


class SearchClock:
    """Clock of one search from the moment it is made; without a limit everything fits.

    `passed_over`: a move that came next did not fit, and another was taken in its place.
    """

    def __init__(
        self, limit_s: float = math.inf, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_s, self.now = limit_s, now
        self._started, self._before = now(), 0.0
        self._closing_s = 0.0
        self.passed_over = False
        self._seconds = self._work = 0.0
        self._epoch_s: dict[str, float] = {}

    def record(self, recipe: Recipe) -> dict[str, float]:
        """Return what is known after a trial, for the journal."""
        known = {"spent_s": self.elapsed_s, "seconds": self._seconds, "work": self._work}
        own = self._epoch_s.get(key(recipe))
        return known if own is None else {**known, "epoch_s": own}

    def resume(self, name: str, recorded: Mapping[str, float]) -> None:
        """Take in what a killed run knew after the trial whose recipe has this key."""
        self._before = max(self._before, recorded.get("spent_s", 0.0))
        self._seconds = recorded.get("seconds", self._seconds)
        self._work = recorded.get("work", self._work)
        if "epoch_s" in recorded:
            self._epoch_s[name] = recorded["epoch_s"]

    def reserve_closing(self, seconds: float) -> None:
        """Keep this much free for what runs after the last training."""
        self._closing_s = min(seconds, CLOSING_MAX * self.limit_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began, a killed run's included."""
        return self._before + self.now() - self._started

    def left_s(self) -> float:
        """Seconds that trainings may still take."""
        return self.limit_s - self._closing_s - self.elapsed_s

    def out_of_time(self) -> bool:
        """Tell whether nothing more may begin, not even a step of training."""
        return self.left_s() <= 0

    def note_training(
        self, recipe: Recipe, *, epochs: float, epoch_cost: float, seconds: float
    ) -> None:
        """Note what the training of a recipe's last step took, for `epochs` at `epoch_cost`."""
        if epochs <= 0:
            return
        self._epoch_s[key(recipe)] = seconds / epochs
        self._seconds += seconds
        self._work += epochs * epoch_cost

    def epoch_s(self, parent: Trial, move: Move) -> float:
        """Seconds of an epoch of the move, of the same model where it was trained before; 0 while
        nothing was.
        """
        if move.role == "recover" and (own := self._epoch_s.get(key(parent.recipe))) is not None:
            return own
        return move.epoch_cost * self._seconds / self._work if self._work else 0.0

    def seconds(self, parent: Trial, move: Move) -> float:
        """Seconds that the training of a move will take."""
        return ESTIMATE_MARGIN * move.epochs * self.epoch_s(parent, move)

    def shorten(self, parent: Trial, move: Move, *, reserve_s: float) -> Move | None:
        """Move as it fits what is left: a recovery with fewer epochs, any other whole or not.

        A move that shrinks leaves `reserve_s` for the final training of what was found before it.
        """
        left = self.left_s()
        if move.role == "shrink":
            return move if self.seconds(parent, move) + reserve_s <= left else None
        each = ESTIMATE_MARGIN * self.epoch_s(parent, move)
        fitting = move.epochs if each * move.epochs <= left else int(left / each)
        return with_epochs(move, fitting) if fitting > 0 else None


def with_epochs(move: Move, epochs: int) -> Move:
    """Return the recovery with another number of epochs."""
    if epochs == move.epochs:
        return move
    return replace(move, step={**move.step, "epochs": epochs}, epochs=epochs)
