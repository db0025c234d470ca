"""Run records: what flow and stages leave of a run's clock, `.fettle/last.json` and records/.

They outlive an upgrade, so that a key of another version is passed over.
"""

from __future__ import annotations

from fettle.facts.typed_document import TypedDocument


class StageTime(TypedDocument, extra="ignore"):
    """One stage of the last run, `cached` when nothing had to be done."""

    name: str
    seconds: float | None
    cached: bool


class GitSources(TypedDocument, extra="ignore"):
    """The sources: `commit` is None outside git, `source` digests the files."""

    commit: str | None
    dirty: bool
    source: str


class PublishedRelease(TypedDocument, extra="ignore"):
    """The release of the last run, as flows/publish.py made it."""

    bento: str
    name: str
    model_version: str
    run_id: str
    digest: str
    folder: str
    git: GitSources
    data: str


class LastRun(TypedDocument, extra="ignore"):
    """`.fettle/last.json`: the last finished run of a tree."""

    finished: str
    release: PublishedRelease
    stages: tuple[StageTime, ...]


class StageRecord(TypedDocument, extra="ignore"):
    """records/STAGE.json: when a stage started (Unix seconds), its time, its artefact."""

    started: float
    seconds: float
    output_digest: str
