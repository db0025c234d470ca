"""The goal that params.yaml asks for, as search.json and choice.json record it."""

from __future__ import annotations

from fettle.facts.typed_document import TypedDocument


class AskedObjective(TypedDocument):
    """What is minimised; `on`, params.yaml's `target`, is None for the best of all."""

    minimise: str
    on: str | None


class AskedBudget(TypedDocument):
    """How much of a metric may be lost: the upper bound at `confidence` is within `drop_max`."""

    metric: str
    drop_max: float
    confidence: float
