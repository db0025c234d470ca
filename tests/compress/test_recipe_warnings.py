from __future__ import annotations

from fettle.compress.recipe_warnings import step_warnings
from fettle.compress.techniques import distil, prune
from fettle.measure import Measure

GOOD = Measure(value=0.98, unit="1", n=179, low=0.95, high=0.99)
BETTER = Measure(value=0.99, unit="1", n=179, low=0.96, high=1.0)
CHANCE = Measure(value=0.117, unit="1", n=179, low=0.08, high=0.17)


def test_a_step_that_does_what_it_claims_needs_no_remark() -> None:
    assert (
        step_warnings(
            prune.CLAIMS,
            before=(1000, 5000),
            after=(100, 700),
            accuracy_before=BETTER,
            accuracy_after=GOOD,
            chance=0.1,
        )
        == ()
    )


def test_a_pruning_that_removed_nothing_is_said() -> None:
    assert step_warnings(
        prune.CLAIMS,
        before=(1000, 5000),
        after=(1000, 5000),
        accuracy_before=GOOD,
        accuracy_after=GOOD,
        chance=0.1,
    ) == (
        "it removed no parameter: 1,000 before and 1,000 after",
        "it saved no multiply-accumulate: 5,000 before, 5,000 after",
    )


def test_a_distillation_that_gained_nothing_is_said() -> None:
    assert step_warnings(
        distil.CLAIMS,
        before=(1000, 5000),
        after=(1000, 5000),
        accuracy_before=BETTER,
        accuracy_after=GOOD,
        chance=0.1,
    ) == ("it gained nothing: validation accuracy 0.9900 before and 0.9800 after",)


def test_an_accuracy_at_chance_is_said() -> None:
    assert step_warnings(
        prune.CLAIMS,
        before=(1000, 5000),
        after=(100, 700),
        accuracy_before=GOOD,
        accuracy_after=CHANCE,
        chance=0.106,
    ) == (
        "accuracy collapsed: 0.1170 on 179 validation images cannot be told from always answering "
        "the commonest class (0.1060)",
    )
