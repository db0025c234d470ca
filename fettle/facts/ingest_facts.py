"""Ingest facts: where the images came from, how many there are, and who divided them."""

from __future__ import annotations

from collections.abc import Mapping

from fettle.facts.typed_document import TypedDocument


class IngestFacts(TypedDocument):
    """Facts of `stages/ingest.py`; counts are images.

    `classes` is {label: {train, validation, test}}; `splits` {train, validation, test: who divided}
    says "own", "drawn" or "drawn from …".
    """

    source: str
    digest: str  # of the source's content (hex)
    rows: int
    unreadable: int
    groups: int
    classes: Mapping[str, Mapping[str, int]]
    splits: Mapping[str, str]
