"""Parity of two forms of one model, as the facts of a stage hold it."""

from __future__ import annotations

from fettle.facts.typed_document import TypedDocument


class AnswerParity(TypedDocument):
    """How far two sets of logits are apart: smallest cosine, largest difference, the same as a
    share of the largest reference logit, share of images with the same winner.
    """

    cosine: float
    max_abs: float
    relative: float | None = None  # not taken of a target's file
    top1: float
