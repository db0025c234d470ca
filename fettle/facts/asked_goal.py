"""The goal that params.yaml asks for, as search.json and choice.json record it."""

from __future__ import annotations

from fettle.facts.quantities import Images, Share
from fettle.facts.typed_document import TypedDocument


class AskedObjective(TypedDocument):
    """What is minimised; `on`, params.yaml's `target`, is None for the best of all."""

    minimise: str
    """What is made as small as can be."""
    on: str | None
    """The target it is minimised on; null for the best of all."""


class AskedBudget(TypedDocument):
    """How much of a metric may be lost: the upper bound at `confidence` is within `drop_max`."""

    metric: str
    """The metric that may lose something."""
    drop_max: Share
    """How much it may lose."""
    confidence: Share
    """Confidence of the one-sided upper bound that is held to drop_max."""
    by_images: Images | None = None
    """Test images whose number chose drop_max (auto); absent where a person did."""
