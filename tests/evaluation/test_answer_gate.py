"""The answer gate: what an emulator's answers can show, and how many images it takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fettle.evaluation import answer_gate
from fettle.evaluation.answer_gate import AnswerVerdict
from fettle.params_schema import Budget

BUDGET = Budget(metric="accuracy", drop_max=0.02, confidence=0.95)


def judged(n: int, *, lost: int = 0, gained: int = 0, **given: Any) -> AnswerVerdict:
    """Judge a file that alone is wrong on `lost` of n images, and alone right on `gained`."""
    labels = np.arange(n) % 3
    right = np.eye(3, dtype=np.float32)[labels]
    baseline, candidate = right.copy(), right.copy()
    candidate[:lost] = np.roll(right[:lost], 1, axis=1)
    baseline[lost : lost + gained] = np.roll(right[lost : lost + gained], 1, axis=1)
    asked = {"stated": None, "images_min": 700, **given}
    return answer_gate.judge(BUDGET, baseline, candidate, labels, **asked)


def test_a_bound_within_the_budget_on_enough_images_ships() -> None:
    found = judged(720, lost=4, gained=4)
    assert found.verdict == "ship"
    assert found.reason == (
        "within the budget: the 95% upper bound of its drop in accuracy is 0.0074 on 720 "
        "validation images, the budget 0.02 (compress.budget)"
    )


def test_a_drop_above_the_budget_is_refused_on_any_number_of_images() -> None:
    for n, lost in ((720, 30), (100, 6)):
        found = judged(n, lost=lost)
        assert found.verdict == "refused"
        assert found.reason.startswith("it drops by more than the budget: the 95% upper bound")


def test_few_images_are_inconclusive_though_the_bound_holds() -> None:
    found = judged(699)
    assert found.verdict == "inconclusive"
    assert found.reason.endswith(
        "but 700 images are wanted (evaluate.accuracy_images_min), or a wider budget for this "
        "target (evaluate.drop_max_of_target)"
    )
    assert judged(700).verdict == "ship"


def test_a_bound_above_the_budget_says_how_many_images_would_decide_it() -> None:
    found = judged(180, lost=2, gained=1)
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("too few images to tell: the 95% upper bound of its drop in ")
    assert "; about " in found.reason
    assert found.reason.endswith(" images would decide it")


def test_a_wider_budget_of_its_own_stands_in_for_the_images() -> None:
    assert judged(180, lost=2, gained=1, stated=0.06).verdict == "ship"
    assert "the budget 0.06 (evaluate.drop_max_of_target)" in judged(180, stated=0.06).reason


def test_a_budget_of_its_own_that_is_no_wider_does_not() -> None:
    assert judged(180, stated=0.02).verdict == "inconclusive"
    assert judged(720, lost=10, stated=0.01).verdict == "refused"
