"""Remaining time of a training, from its own steps: nothing is guessed before STEPS_MIN of them."""

from __future__ import annotations

import time
from collections.abc import Callable

STEPS_MIN = 20  # the first steps choose kernels and fill caches
SECONDS_MIN = 2.0  # a training that is over by then needs no forecast
EVERY_S = 2.0  # a line of progress at most this often


class RemainingTime:
    """Remaining time of a training of `steps` steps in all.

    `step` is told of each step that begins. What validation takes at an epoch's end lies between
    two steps, and so counts once the first epoch is over.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._first = self._last = self._said = now()
        self._from = self._at = self._of = 0

    def step(self, number: int, of: int) -> bool:
        """Note that step `number` (from 1) of `of` begins; True when a line of progress is due."""
        self._last = self._now()
        if self._of == 0:
            self._first, self._from = self._last, number
        self._at, self._of = number, of
        due = self.left_s() is not None and self._last - self._said >= EVERY_S
        if due:
            self._said = self._last
        return due

    def left_s(self) -> float | None:
        """Seconds until the last step is done; None while nothing is known."""
        done, spent = self._at - self._from, self._last - self._first
        if done < STEPS_MIN or spent < SECONDS_MIN:
            return None
        return spent / done * (self._of - self._at + 1)

    def text(self) -> str:
        """Say it as the end of a line: ", 4 min left"; nothing while nothing is known."""
        left = self.left_s()
        return "" if left is None else f", {spoken(left)} left"


def spoken(seconds: float) -> str:
    """Say a time in words: 45 s, 25 min, 1 h 30 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest:02d} min" if hours else f"{rest} min"
