"""Search document, search.json: every recipe that was tried, what it bought and cost, and why."""

from __future__ import annotations

from typing import Literal

from fettle.facts.asked_goal import AskedBudget, AskedObjective
from fettle.facts.compress_facts import SearchSummary
from fettle.facts.typed_document import Options, TypedDocument

TrialVerdict = Literal["chosen", "kept", "beaten", "refused"]


class TriedRecipe(TypedDocument):
    """One trial; a refused recipe has no figures.

    `value` is the objective in the document's unit, drops are shares of the budget's metric,
    `excess` the worst ratio of a figure to its limit. What was `foreseen` is the surrogate's word.
    """

    number: int
    parent: int  # the trial it goes on from; -1 none
    role: Literal["root", "shrink", "recover"]
    recipe: tuple[Options, ...]
    verdict: TrialVerdict
    reason: str
    value: float | None = None
    foreseen_value: float | None = None
    drop: float | None = None
    foreseen_drop: float | None = None
    untrained_drop: float | None = None
    chance: float | None = None
    excess: float | None = None
    params: float | None = None
    macs: float | None = None
    accuracy: float | None = None
    epochs: float | None = None
    bought: str | None = None
    cost: str | None = None


class ConvergencePoint(TypedDocument):
    """The best accepted model after so many evaluations."""

    evaluations: int
    value: float
    params: float
    macs: float


class SearchDocument(SearchSummary):
    """search.json; `front` are the numbers of the trials that no other beats in both aims."""

    objective: AskedObjective
    aim: str
    budget: AskedBudget
    unit: str
    priced_by: str
    evaluations_max: int
    ended: Literal["settled", "evaluations", "clock"]
    chance_min: float
    best: int
    front: tuple[int, ...]
    recipe: tuple[Options, ...]
    curve: tuple[ConvergencePoint, ...]
    trials: tuple[TriedRecipe, ...]

    def summary(self) -> SearchSummary:
        """Return what compress's manifest says of the search."""
        return SearchSummary(
            goal_met=self.goal_met,
            why=self.why,
            truncated=self.truncated,
            evaluations=self.evaluations,
            recipe_yaml=self.recipe_yaml,
            predictor=self.predictor,
        )
