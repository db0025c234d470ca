"""Verdict facts: whether the file holds every bound on test; verdict.json and confusion.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fettle.facts.asked_goal import AskedBudget
from fettle.facts.typed_document import Measured, TypedDocument
from fettle.measure import Measure

VERDICT = "verdict.json"


class BudgetStatus(TypedDocument):
    """How the budget stands: the one-sided bound of the drop, and the images that would decide."""

    status: Literal["met", "exceeded", "undecided"]
    bound: float
    n_needed: int | None


class AskedLimit(TypedDocument):
    """A bound of a figure on test: `min`, `max`, or both."""

    metric: str
    min: float | None = None
    max: float | None = None


class AskedBounds(TypedDocument):
    """Every bound that the file was held to: compress.budget, and params.yaml's verdict.

    `smoke_images` are (those taken, those there) of a smoke run, which no file passes.
    """

    budget: AskedBudget
    limits: tuple[AskedLimit, ...]
    class_drop_max: float | None
    licences_allow: tuple[str, ...] | None = None
    smoke_images: tuple[int, int] | None = None


class ModelCounts(TypedDocument):
    """Size of a model: its bytes, its parameters, and its multiply-accumulates an image."""

    size_bytes: int
    parameters: int
    macs: int


class RowsLedger(TypedDocument):
    """How often these test images have judged, this verdict included; `rows` is their digest.

    The same file by the same bounds counts once, `models` are the different files.
    """

    rows: str
    verdicts: int
    models: int


class VerdictFacts(TypedDocument):
    """Facts of `stages/verdict.py`: every check as a sentence, those that failed again.

    `bounds` and `float_model` are what the checks and the ratios were made with; a verdict of an
    earlier version has neither.
    """

    passed: bool
    reasons: tuple[str, ...]
    failed: tuple[str, ...]
    target: str
    metric: str  # the budget's
    budget: BudgetStatus
    split: str
    classes: tuple[str, ...]
    n: int
    bounds: AskedBounds | None = None
    float_model: ModelCounts | None = None
    ledger: RowsLedger | None = None
    licences: Mapping[str, str | None] = {}  # of the data and the model; None: nobody states it


class VerdictDocument(VerdictFacts):
    """verdict.json: the facts with their Measures, for a person or a script."""

    measures: Mapping[str, Measured]

    @classmethod
    def of(cls, facts: VerdictFacts, measures: Mapping[str, Measure]) -> VerdictDocument:
        """Put the two together."""
        return cls.model_validate({**dict(facts), "measures": measures})


class ConfusionDocument(TypedDocument):
    """confusion.json: counts by [true class, answer] of the shipped file and of the float model."""

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    float_: tuple[tuple[int, ...], ...] = Field(alias="float")
