"""Trial watch: ends a trial in the middle of its training, when time is up or it is hopeless.

Early stopping by rungs, as in successive halving (Li et al. 2020, arXiv:1810.05934): at a ninth, a
third and two thirds of its epochs a training must be as near to the float model as a share of what
that knows beyond the largest class. The shares felt right; no data set chose them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from fettle.errors import ModelError
from fettle.recipes.remaining_time import spoken
from fettle.recipes.search.trial import SearchTimeoutError
from fettle.training.training_loop import Loss
from fettle.training.training_plan import StopTraining

# (share of the epochs, share of the float model's gain over the largest class that may be missing)
RUNGS = ((1 / 9, 0.5), (1 / 3, 0.25), (2 / 3, 0.125))
EPOCHS_MIN = 9  # a shorter training is the cheap evidence itself


class HopelessTrialError(ModelError):
    """A training that was ended at a rung."""


class OutOfTimeError(SearchTimeoutError, StopTraining):
    """Time is up at a step: the training keeps its best epoch, or the trial ends without one."""


@dataclass(slots=True)
class TrialWatch:
    """Watch over the trainings of one trial; the default lets everything pass.

    `reference` is the float model's accuracy on validation, `chance` the largest class's share;
    without them no training is hopeless. `epochs` counts those that were trained, `steps` and
    `seconds` are of this process; `search_left_s` says what the search may still take, `cut` what
    the clock took from a training.
    """

    out_of_time: Callable[[], bool] = lambda: False
    reference: float | None = None
    chance: float = 0.0
    now: Callable[[], float] = time.monotonic
    search_left_s: Callable[[], float] = lambda: math.inf
    epochs: int = 0
    steps: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    cut: str = field(default="", init=False)
    _best: float = field(default=0.0, init=False)

    def each_step(self, loss: Loss) -> Loss:
        """Loss that asks the clock first; raises OutOfTimeError when time is up."""

        def timed(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            self.ask()
            self.steps += 1
            return loss(model, images, labels)

        return timed

    def ask(self) -> None:
        """Ask the clock; raises OutOfTimeError when time is up."""
        if self.out_of_time():
            raise OutOfTimeError

    def left(self) -> str:
        """Say what the search may still take, as the end of a line; nothing without a bound."""
        seconds = self.search_left_s()
        return "" if math.isinf(seconds) else f"; the search ends in {spoken(seconds)} at most"

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Count the seconds of a training, its looks at validation included."""
        started = self.now()
        try:
            yield
        finally:
            self.seconds += self.now() - started

    def epoch(self, number: int, *, of: int, accuracy: float) -> None:
        """Note a finished epoch, from 1; raises HopelessTrialError at a rung that it misses."""
        self.epochs += 1
        self._best = accuracy if number == 1 else max(self._best, accuracy)
        if self.reference is None or of < EPOCHS_MIN:
            return
        missing = self.reference - self._best
        for share, most in RUNGS:
            allowed = most * max(0.0, self.reference - self.chance)
            if number == max(1, round(share * of)) and missing > allowed:
                raise HopelessTrialError(
                    f"stopped at epoch {number} of {of}",
                    got=f"{100 * missing:.1f} points below the float model on validation",
                    rule=f"at most {100 * allowed:.1f} by then",
                    fix="nothing: the search goes on with a milder recipe",
                )
