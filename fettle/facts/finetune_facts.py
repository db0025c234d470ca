"""Fine-tuning facts: what rebuilds the float model; and curve.json, its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import JsonValue

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.typed_document import Options, TypedDocument, TypedRows


class FineTuningFacts(TypedDocument):
    """What images held out of training chose: the trained network or the linear probe.

    Both accuracies are on those images; `said` are the decisions, as a person read them.
    """

    kept: Literal["trained", "probe"]
    choice_images: int
    trained_accuracy: float
    probe_accuracy: float | None
    said: tuple[str, ...]


class FinetuneFacts(TypedDocument):
    """Facts of `stages/finetune.py`.

    `options` rebuild the family's network, its weights are model.safetensors. An ONNX file that was
    taken as it is has no best epoch and no parity. `decided` is what became of `auto` in the
    params, {"preprocess.size_px": 128}; `fine_tuning` is there where choice images were held out.
    """

    family: str
    options: Options
    classes: tuple[str, ...]
    channels: int
    size_px: int
    trains: bool
    epochs: int
    best_epoch: int = 0
    params: int
    parity: AnswerParity | None = None
    notes: tuple[str, ...]
    decided: Mapping[str, JsonValue] = {}
    fine_tuning: FineTuningFacts | None = None
    licence: str | None = None  # of the model, where somebody states it


class CurveEpoch(TypedDocument):
    """One epoch, counted from 1; losses in nats."""

    epoch: int
    phase: Literal["head", "unfreezing", "all"]
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float


class TrainingCurve(TypedRows[CurveEpoch]):
    """curve.json: every epoch; empty when nothing was trained."""
