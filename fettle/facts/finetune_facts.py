"""Fine-tuning facts: what rebuilds the float model; and curve.json, its training."""

from __future__ import annotations

from typing import Literal

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.typed_document import Options, TypedDocument, TypedRows


class FinetuneFacts(TypedDocument):
    """Facts of `stages/finetune.py`.

    `options` rebuild the family's network, its weights are model.safetensors. An ONNX file that was
    taken as it is has no best epoch and no parity.
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
