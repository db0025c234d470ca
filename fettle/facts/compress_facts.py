"""Compression facts: the recipe and what each step left; layers.json and sensitivity.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.quantities import Count, Quantity
from fettle.facts.typed_document import Options, TypedDocument, TypedRows

SurrogateFigure = Annotated[float, Quantity("1", low=-1)]


class RecipeStep(TypedDocument):
    """One step as it was done: size, accuracy on validation, notes, layers that it left alone."""

    use: str
    params: int
    macs: int
    validation_accuracy: float
    notes: tuple[str, ...]
    skipped: Mapping[str, str]  # {layer: why}


class SearchSummary(TypedDocument):
    """What the search for a recipe came to: the head of search.json."""

    goal_met: bool
    """Whether a model inside the budget and the limits was found."""
    why: str
    """Why the search ended, as a sentence."""
    truncated: bool
    """Whether it ended at its clock."""
    evaluations: Count
    """Recipes that were tried."""
    recipe_yaml: str
    """The recipe found, as params.yaml would hold it."""
    predictor: Mapping[str, SurrogateFigure]
    """Errors and rank correlations of the surrogate; empty for too few trials."""


class CompressFacts(TypedDocument):
    """Facts of `stages/compress.py`.

    `recipe` is the one given or found; `calibration_digest` is over the training images that export
    calibrates on; `parity` is of model.onnx; `search` is there with `recipe: auto`.
    """

    classes: tuple[str, ...]
    trains: bool
    calibration_digest: str
    recipe: tuple[Options, ...]
    steps: tuple[RecipeStep, ...]
    parity: AnswerParity
    search: SearchSummary | None = None


class LayerChange(TypedDocument):
    """One layer before and after; zeros after where it is gone. MACs are for one image."""

    layer: str
    kind: str
    channels_before: int
    channels_after: int
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int


class LayerTable(TypedRows[LayerChange]):
    """layers.json: every layer of the float model; empty when nothing was compressed."""


class BlockLoss(TypedDocument):
    """A block that can be bypassed, and the rise of the loss (nats) when it is."""

    name: str
    layers: tuple[str, ...]
    params: int
    macs: int
    loss_increase: float


class GroupLoss(TypedDocument):
    """A group of channels; `losses` are (share kept, rise of the loss in nats)."""

    name: str
    width: int
    layers: tuple[str, ...]
    losses: tuple[tuple[float, float], ...]


class SensitivityDocument(TypedDocument):
    """sensitivity.json: the loss on `images`, and what it says to each block and group."""

    loss: float
    images: int
    blocks: tuple[BlockLoss, ...]
    groups: tuple[GroupLoss, ...]
    skipped: Mapping[str, str]  # {part: why}
