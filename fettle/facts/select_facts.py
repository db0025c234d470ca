"""Selection facts: the target that is shipped; and choice.json, what it was chosen from."""

from __future__ import annotations

from collections.abc import Mapping

from fettle.facts.asked_goal import AskedBudget, AskedObjective
from fettle.facts.evaluate_facts import Evidence, ShipVerdict
from fettle.facts.typed_document import Measured, TypedDocument

CHOICE = "choice.json"


class SelectFacts(TypedDocument):
    """Facts of `stages/select.py`."""

    target: str
    goal_met: bool
    why: str


class ChoiceRow(TypedDocument):
    """One target; None where nothing was measured.

    `value` is the objective's, `drop` the budget's metric's, both on validation; `chance` is the
    probability that the budget holds on test; `over` are the limits that the file breaks, each as
    a sentence. `verdict` and `reason` of a target that was never timed are the answer gate's.
    """

    target: str
    verdict: ShipVerdict
    evidence: Evidence
    reason: str
    size_bytes: int | None
    value: Measured | None
    drop: Measured | None
    chance: float | None
    inside_budget: bool | None
    accuracy: Measured | None
    speedup: Measured | None
    over: tuple[str, ...]


class ChoiceDocument(TypedDocument):
    """choice.json; `limits` are those of compress.constraints, by name."""

    target: str
    objective: AskedObjective
    budget: AskedBudget
    chance_min: float
    limits: Mapping[str, int | float]
    goal_met: bool
    why: str
    candidates: tuple[ChoiceRow, ...]

    def row(self) -> ChoiceRow:
        """Return the chosen target's row."""
        return next(row for row in self.candidates if row.target == self.target)
