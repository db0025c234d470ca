"""Search document, search.json: every recipe that was tried, what it bought and cost, and why."""

from __future__ import annotations

from typing import Annotated, Literal

from fettle.facts.asked_goal import AskedBudget, AskedObjective
from fettle.facts.compress_facts import SearchSummary, Work
from fettle.facts.quantities import (
    Count,
    Epochs,
    MultiplyAdds,
    Parameters,
    Quantity,
    Share,
    ShareChange,
    Times,
)
from fettle.facts.typed_document import Options, TypedDocument

TrialVerdict = Literal["chosen", "kept", "beaten", "refused"]
Objective = Annotated[float, Quantity("as the search's `unit` says", low=0)]
Foreseen = Annotated[float, Quantity("1")]  # a surrogate may say what cannot be


class TriedRecipe(TypedDocument):
    """One trial; a refused recipe has no figures.

    `value` is the objective in the document's unit, drops are shares of the budget's metric,
    `excess` the worst ratio of a figure to its limit. What was `foreseen` is the surrogate's word.
    """

    number: Count
    """The trial's number."""
    parent: Annotated[int, Quantity("1", low=-1)]
    """The trial it goes on from; -1 for none."""
    role: Literal["root", "shrink", "recover"]
    """root is the float model, shrink a smaller one, recover one trained longer."""
    recipe: tuple[Options, ...]
    """Its steps, as compress.recipe would hold them."""
    verdict: TrialVerdict
    """What became of it; kept are those that none beats in both aims."""
    reason: str
    """Why, as a sentence."""
    value: Objective | None = None
    """The objective; absent where the recipe gave no model."""
    foreseen_value: Objective | None = None
    """What the surrogate said of it before."""
    drop: ShareChange | None = None
    """Loss of the budget's metric on validation."""
    foreseen_drop: Foreseen | None = None
    """What the surrogate said of it before; null for the first."""
    untrained_drop: ShareChange | None = None
    """The same before any recovery training."""
    chance: Share | None = None
    """Probability that the budget would hold on test."""
    excess: Times | None = None
    """Largest ratio of a figure to its limit."""
    params: Parameters | None = None
    """Parameters that are left."""
    macs: MultiplyAdds | None = None
    """Multiply-adds for one image that are left."""
    accuracy: Share | None = None
    """Accuracy on validation."""
    standing: Literal["passed", "near", "failed"] | None = None
    """Whether it passed, nearly passed, or failed (no children); null for the float model."""
    work: Work = 0.0
    """Training that it took, in epochs of the float model."""
    epochs: Epochs | None = None
    """Epochs of recovery training."""
    bought: str | None = None
    """What its last step bought, as words."""
    cost: str | None = None
    """What its last step cost, as words."""


class ConvergencePoint(TypedDocument):
    """The best accepted model after so many evaluations."""

    evaluations: Count
    """Recipes tried by then."""
    value: Objective
    """The best objective by then."""
    params: Parameters
    """Parameters of that model."""
    macs: MultiplyAdds
    """Multiply-adds of that model for one image."""


class SearchDocument(SearchSummary):
    """search.json; `front` are the numbers of the trials that no other beats in both aims."""

    objective: AskedObjective
    """What is minimised, and where."""
    aim: str
    """objective for the best within the budget, front for the trade-off."""
    budget: AskedBudget
    """How much of a metric may be lost."""
    unit: str
    """Unit of the objective."""
    priced_by: str
    """What the objective of a trial comes from."""
    evaluations_max: Count
    """Recipes that might have been tried."""
    ended: Literal["settled", "evaluations", "steps", "clock"]
    """What ended it."""
    chance_min: Share
    """Probability of holding the budget that a trial had to have."""
    best: Count
    """Number of the chosen trial."""
    front: tuple[Count, ...]
    """Numbers of the trials that none beats in both aims."""
    recipe: tuple[Options, ...]
    """The recipe found, as compress.recipe would hold it."""
    curve: tuple[ConvergencePoint, ...]
    """The best model after each evaluation."""
    trials: tuple[TriedRecipe, ...]
    """Every recipe that was tried."""

    def summary(self) -> SearchSummary:
        """Return what compress's manifest says of the search."""
        return SearchSummary(
            goal_met=self.goal_met,
            why=self.why,
            truncated=self.truncated,
            cut=self.cut,
            evaluations=self.evaluations,
            recipe_yaml=self.recipe_yaml,
            tally=self.tally,
            predictor=self.predictor,
        )
