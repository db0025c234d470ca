"""Undecided trials: what a search had to leave because few images decide little, and for how much.

A trial that lost no more than the budget allows on validation may still be refused: on a few
hundred test images the bound of a model that answers some of them otherwise lies beyond the budget
about as often as not. Nothing was cut then, and a person must know what lay ready.
"""

from __future__ import annotations

from fettle.evaluation import passing_probability
from fettle.params_schema import Budget
from fettle.recipes.search.search_result import SearchResult

DROPS_MAX = tuple(step / 200 for step in range(1, 41))  # half a point to twenty
GAIN_MIN = 0.95  # of the float model's cost: what saves less is not worth a word


def left_ready(
    search: SearchResult, budget: Budget, *, seen: int, tested: int, unit: str
) -> str | None:
    """Say which trial a search left that chose the float model, and what drop_max would take it.

    `seen` and `tested` are the numbers of validation and test images. None where something was
    cut, or nothing stayed within the budget on validation.
    """
    root = search.trials[0].result
    ready = [
        trial
        for trial in search.trials[1:]
        if not trial.result.refused
        and trial.result.excess <= 1
        and trial.result.drop <= budget.drop_share
        and trial.result.value <= GAIN_MIN * root.value
    ]
    if search.trials[search.best].recipe or not ready:
        return None
    best = min(ready, key=lambda trial: (trial.result.value, trial.number))
    wide = taken_from(budget, best.result.drop, seen=seen, tested=tested)
    by = " > ".join(str(step["use"]) for step in best.recipe)
    cure = f"compress.budget.drop_max {wide:g} takes it, and so do" if wide else "only"
    return (
        f"nothing was cut, for {seen:,} validation and {tested:,} test images do not decide "
        f"{budget.drop_share:g}: trial {best.number} ({by}) costs {best.result.value:.3g} {unit}, "
        f"{root.value / best.result.value:.1f} times less, and lost "
        f"{100 * best.result.drop:.1f} points on validation; {cure} more images"
    )


def taken_from(budget: Budget, drop: float, *, seen: int, tested: int) -> float | None:
    """Return the least drop_max at which a model with this validation drop is taken; None: none."""
    for drop_max in DROPS_MAX:
        if drop_max <= budget.drop_share:
            continue
        asked = budget.model_copy(update={"drop_max": drop_max})
        chance = passing_probability.probability_for_drop(asked, drop, seen=seen, tested=tested)
        if chance >= passing_probability.probability_min(asked, seen=seen, tested=tested):
            return drop_max
    return None
