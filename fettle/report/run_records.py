"""Run records: what a stage leaves of its clock in records/STAGE.json.

They outlive an upgrade, so that a key of another version is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping

from fettle.facts.typed_document import TypedDocument


class StageRecord(TypedDocument, extra="ignore"):
    """records/STAGE.json: when a stage started (Unix seconds), its time, its artefact.

    `asked` are the sections of the params that it read, `images` how many its source had: what its
    time depends on. A record of an earlier version has neither.
    """

    started: float
    seconds: float
    output_digest: str
    peak_memory_bytes: int | None = None
    disk_bytes: int | None = None
    host: str | None = None
    images: int | None = None
    asked: Mapping[str, object] = {}
