"""A training says how long it still takes, from its own steps, and guesses nothing before."""

from __future__ import annotations

import math

import pytest

from fettle.recipes.remaining_time import STEPS_MIN, RemainingTime, spoken
from fettle.recipes.trial_watch import TrialWatch


class Steps:
    """A training of 200 steps of three seconds each."""

    def __init__(self, first: int = 1) -> None:
        self.at_s, self.first, self.number = 0.0, first, first - 1
        self.time = RemainingTime(now=lambda: self.at_s)

    def take(self, count: int) -> list[bool]:
        due = []
        for _ in range(count):
            self.number += 1
            due.append(self.time.step(self.number, 200))
            self.at_s += 3.0
        return due


def test_nothing_is_guessed_before_twenty_steps_are_measured() -> None:
    steps = Steps()
    assert not any(steps.take(STEPS_MIN))
    assert steps.time.left_s() is None
    assert steps.time.text() == ""
    assert steps.take(1) == [True]
    assert steps.time.left_s() == 3.0 * (200 - STEPS_MIN)
    assert steps.time.text() == ", 9 min left"


def test_what_is_left_falls_to_nothing_with_the_steps() -> None:
    steps = Steps()
    left = []
    for _ in range(9):
        steps.take(21)
        left.append(steps.time.left_s())
    assert left == [3.0 * (200 - 21 * count + 1) for count in range(1, 10)]


def test_a_training_that_goes_on_after_a_kill_counts_the_steps_of_this_process_alone() -> None:
    steps = Steps(first=151)
    steps.take(21)
    assert steps.time.left_s() == 3.0 * (200 - 170)


def test_a_training_of_two_seconds_has_no_forecast() -> None:
    time = RemainingTime(now=lambda: 0.0)
    assert not any(time.step(number, 200) for number in range(1, 100))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (1490, "25 min"), (5400, "1 h 30 min")],
)
def test_a_time_is_said_in_words(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


def test_a_trial_says_what_the_whole_search_may_still_take() -> None:
    assert TrialWatch().left() == ""
    watch = TrialWatch(search_left_s=lambda: 540.0)
    assert watch.left() == "; the search ends in 9 min at most"
    assert math.isinf(TrialWatch().search_left_s())
