"""`compress.budget.drop_max: auto`: the number of test images chooses the bound, and says so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_project import ROOT

from fettle import params, params_scope
from fettle.cli import crossfit
from fettle.errors import OurFault, ParamsError
from fettle.evaluation import accuracy_budget, goal_feasibility
from fettle.facts.asked_goal import AskedBudget
from fettle.facts.verdict_facts import AskedBounds
from fettle.params import Params
from fettle.recorder import MemoryRecorder
from fettle.release import release_gate
from fettle.release.release_gate import PairedAnswers

AUTO = "compress.budget.drop_max=auto"


def load(*overrides: str) -> Params:
    return params.load(ROOT / "params.yaml", [*overrides])


def decided(tested: int, *overrides: str) -> tuple[Params, str]:
    recorder, settings = MemoryRecorder(), load(AUTO, *overrides)
    found = goal_feasibility.decide_drop(settings.compress.budget, tested, recorder)
    return params_scope.settle(settings, found), recorder.notes["decision"]


@pytest.mark.parametrize("tested", [60, 372, 1512])
def test_it_is_the_least_drop_that_so_many_images_can_decide(tested: int) -> None:
    settings, said = decided(tested)
    budget = settings.compress.budget
    least = accuracy_budget.least_decidable_drop(tested, confidence=0.95)
    assert (budget.drop_max, budget.drop_share, budget.by_images) == (least, least, tested)
    assert said == (
        f"compress.budget.drop_max is {least:g}: the least drop that n = {tested:,} test images "
        "can decide at 95%; their number chose it (auto), no person did"
    )
    recorder = MemoryRecorder()
    goal_feasibility.check(settings, classes=10, tested=tested, least_class=5, recorder=recorder)
    assert recorder.notes == {}  # it is not below the noise


def test_a_bound_that_a_person_chose_stays_and_says_so() -> None:
    recorder, settings = MemoryRecorder(), load("compress.budget.drop_max=0.01")
    assert goal_feasibility.decide_drop(settings.compress.budget, 372, recorder) == {}
    assert recorder.notes == {}
    assert settings.compress.budget.recorded() == {
        "metric": "accuracy",
        "drop_max": 0.01,
        "confidence": 0.95,
    }


def test_the_gate_and_every_record_say_that_the_images_chose_it() -> None:
    settings, _ = decided(900)
    asked = AskedBudget.model_validate(settings.compress.budget.recorded())
    assert json.loads(json.dumps(asked.to_object()))["by_images"] == 900
    labels = np.arange(900) % 2
    answers = PairedAnswers(np.eye(2)[labels], np.eye(2)[labels], labels, ["cat", "dog"])
    bounds = AskedBounds(budget=asked, limits=(), class_drop_max=None)
    measures = release_gate.compare(answers)
    judged = release_gate.judge(answers, measures, bounds, over=(), licences={})
    assert judged.passed
    assert judged.reasons[0].endswith(
        f"is within the budget of {asked.drop_max:g} (compress.budget.drop_max: auto, the least "
        "that n = 900 test images can decide; their number chose it, no person did)"
    )
    own = AskedBudget(metric="accuracy", drop_max=asked.drop_max, confidence=0.95)
    judged = release_gate.judge(
        answers,
        measures,
        AskedBounds(budget=own, limits=(), class_drop_max=None),
        over=(),
        licences={},
    )
    assert judged.reasons[0].endswith(f"the budget of {asked.drop_max:g} (compress.budget)")


def test_another_metric_has_no_auto() -> None:
    with pytest.raises(ParamsError) as caught:
        load(AUTO, "compress.budget.metric=macro_f1")
    assert ("compress.budget: drop_max: auto is for accuracy alone, not for macro_f1") in str(
        caught.value
    )


def test_nobody_states_that_images_chose_a_bound() -> None:
    settings = load("compress.budget.by_images=5000")
    with pytest.raises(ParamsError) as caught:
        goal_feasibility.decide_drop(settings.compress.budget, 372, MemoryRecorder())
    assert str(caught.value) == (
        "compress.budget.by_images is no parameter to set: got 5,000; it says how many test images "
        "chose drop_max, where that is auto. Fix: take it out of params.yaml."
    )


def test_an_undecided_bound_is_never_used_and_folds_decide_it_together() -> None:
    budget = load(AUTO).compress.budget
    with pytest.raises(OurFault):
        _ = budget.drop_share
    pooled = crossfit.pooled_budget(budget, 2000)
    assert pooled.drop_share == accuracy_budget.least_decidable_drop(2000, confidence=0.95)
    own = load().compress.budget
    assert crossfit.pooled_budget(own, 2000) == own


def test_the_hint_of_a_bound_below_the_noise_names_auto() -> None:
    text = accuracy_budget.noise_warning(372, drop_max=0.01, confidence=0.95)
    assert text is not None
    assert text.endswith("or raise compress.budget.drop_max (auto: to that least drop)")
