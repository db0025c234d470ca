from __future__ import annotations

from dataclasses import replace

from fettle.params_schema import Budget
from fettle.recipes import undecided_trials
from fettle.recipes.search.search_result import SearchResult
from fettle.recipes.search.trial import Result, Trial

BUDGET = Budget(metric="accuracy", drop_max=0.02)
CUT = ({"use": "prune"}, {"use": "distil"})


def search(*, best: int = 0, drop: float = 0.0117, value: float = 0.25) -> SearchResult:
    trials = (
        Trial(number=0, parent=-1, recipe=(), role="root", result=Result(value=1.0, drop=0.0)),
        Trial(
            number=1,
            parent=0,
            recipe=({"use": "prune"},),
            role="shrink",
            result=Result(value=0.7, drop=0.0, chance=0.49),
        ),
        Trial(
            number=2,
            parent=1,
            recipe=CUT,
            role="recover",
            result=Result(value=value, drop=drop, chance=0.2),
        ),
    )
    return SearchResult(
        trials=trials, standings=("passed", "near", "near"), best=best, met=True, ended="settled"
    )


def said(found: SearchResult, *, seen: int = 341, tested: int = 372) -> str | None:
    return undecided_trials.left_ready(found, BUDGET, seen=seen, tested=tested, unit="ms predicted")


def test_a_search_that_cut_nothing_names_the_best_it_left_and_the_bound_that_takes_it() -> None:
    assert said(search()) == (
        "nothing was cut, for 341 validation and 372 test images do not decide 0.02: trial 2 "
        "(prune > distil) costs 0.25 ms predicted, 4.0 times less, and lost 1.2 points on "
        "validation; compress.budget.drop_max 0.04 takes it, and so do more images"
    )


def test_nothing_is_said_where_something_was_cut() -> None:
    assert said(search(best=1)) is None


def test_a_trial_beyond_the_budget_on_validation_is_not_offered() -> None:
    found = said(search(drop=0.03))
    assert found is not None
    assert "trial 1 (prune)" in found
    nothing = search(drop=0.03)
    lost = replace(nothing.trials[1], result=Result(value=0.7, drop=0.05))
    assert said(replace(nothing, trials=(nothing.trials[0], lost, nothing.trials[2]))) is None


def test_more_images_take_it_at_a_tighter_bound() -> None:
    few = undecided_trials.taken_from(BUDGET, 0.0117, seen=341, tested=372)
    many = undecided_trials.taken_from(BUDGET, 0.0117, seen=3000, tested=10_000)
    assert few == 0.04
    assert many is not None
    assert many < few
