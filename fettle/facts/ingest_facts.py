"""Ingest facts: where the images came from, how many there are, and who divided them."""

from __future__ import annotations

from collections.abc import Mapping

from fettle.facts.quantities import Count, Images
from fettle.facts.typed_document import TypedDocument


class IngestFacts(TypedDocument):
    """Facts of `stages/ingest.py`; counts are images.

    `classes` is {label: {train, validation, test}}; `splits` {train, validation, test: who divided}
    says "own", "drawn" or "drawn from …".
    """

    source: str
    """The source's name in params.yaml."""
    digest: str
    """Digest of the data's content (64 hex digits)."""
    rows: Images
    """Images in the table."""
    unreadable: Images
    """Images that cannot be decoded."""
    groups: Count
    """Groups of images that may not straddle splits."""
    classes: Mapping[str, Mapping[str, Images]]
    """Images of each class in train, validation and test."""
    splits: Mapping[str, str]
    """Who divided train, validation and test: own, drawn, drawn from another."""
    limited_from: Images | None = None
    """Images that the source had, where ingest.limit drew a few for a smoke run; absent else."""
    licence: str | None = None
    """Licence of the data; absent where nobody states it."""
