"""Run records: what a stage leaves of its clock in records/STAGE.json.

They outlive an upgrade, so that a key of another version is passed over.
"""

from __future__ import annotations

from fettle.facts.typed_document import TypedDocument


class StageRecord(TypedDocument, extra="ignore"):
    """records/STAGE.json: when a stage started (Unix seconds), its time, its artefact."""

    started: float
    seconds: float
    output_digest: str
