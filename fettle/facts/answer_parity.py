"""Parity of two forms of one model, as the facts of a stage hold it."""

from __future__ import annotations

from fettle.facts.quantities import Cosine, Logit, Share, Times
from fettle.facts.typed_document import TypedDocument


class AnswerParity(TypedDocument):
    """How far two sets of logits are apart: smallest cosine, largest difference, the same as a
    share of the largest reference logit, share of images with the same winner.
    """

    cosine: Cosine
    """Smallest cosine of the logits over the images."""
    max_abs: Logit
    """Largest difference of two logits."""
    relative: Times | None = None
    """The same over the largest reference logit; absent for a target's file."""
    top1: Share
    """Share of the images with the same winner."""
