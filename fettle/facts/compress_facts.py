"""Compression facts: the recipe and what each step left; layers.json and sensitivity.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import JsonValue

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.quantities import Count, Quantity, Share
from fettle.facts.typed_document import Options, TypedDocument, TypedRows

Work = Annotated[float, Quantity("epoch of the float model", low=0)]
SurrogateFigure = Annotated[float, Quantity("1", low=-1)]


class RecipeStep(TypedDocument):
    """One step as it was done: size, accuracy on validation, notes, layers that it left alone."""

    use: str
    params: int
    macs: int
    validation_accuracy: float
    notes: tuple[str, ...]
    skipped: Mapping[str, str]  # {layer: why}


class TrialTally(TypedDocument):
    """How a search's trials ended. Work is training, in epochs of the float model: it says the same
    on every machine.
    """

    passed: Count
    """Trials that may be the answer."""
    near: Count
    """Trials that nearly passed."""
    collapsed: Count
    """Trials that failed: far out, collapsed, or without a model."""
    work: Work
    """Training of all trials, in epochs of the float model."""
    well_spent: Share | None
    """Share of it that went to trials that passed or nearly passed; null for none."""

    def sentence(self) -> str:
        """Say it in one line."""
        text = f"{self.passed} passed, {self.near} nearly passed, {self.collapsed} collapsed"
        if self.well_spent is None:
            return text
        return (
            f"{text}; {100 * self.well_spent:.0f} % of the training went to those that passed or "
            "nearly passed"
        )


class SearchSummary(TypedDocument):
    """What the search for a recipe came to: the head of search.json."""

    goal_met: bool
    """Whether a model inside the budget and the limits was found."""
    why: str
    """Why the search ended, as a sentence."""
    truncated: bool
    """Whether its clock ended it, or cut a training."""
    cut: tuple[str, ...] = ()
    """Trainings that the clock cut, a line each."""
    evaluations: Count
    """Recipes that were tried."""
    recipe_yaml: str
    """The recipe found, as params.yaml would hold it."""
    tally: TrialTally
    """How the trials ended, and what they took."""
    predictor: Mapping[str, SurrogateFigure]
    """Errors and rank correlations of the surrogate; empty for too few trials."""


class CompressFacts(TypedDocument):
    """Facts of `stages/compress.py`.

    `recipe` is the one given or found; `calibration_digest` is over the training images that export
    calibrates on; `parity` is of model.onnx; `search` is there with `recipe: auto`. `decided` is
    finetune's, handed on to those that read no facts of finetune. `input_size_px` is the side of
    the images that the model takes, None where it is the float model's.
    """

    classes: tuple[str, ...]
    trains: bool
    calibration_digest: str
    recipe: tuple[Options, ...]
    steps: tuple[RecipeStep, ...]
    parity: AnswerParity
    search: SearchSummary | None = None
    decided: Mapping[str, JsonValue] = {}
    input_size_px: int | None = None


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
