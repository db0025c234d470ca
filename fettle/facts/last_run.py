"""Last run's record, `.fettle/last.json`: the release that was published, and the stages' times.

It outlives an upgrade, so that a key of another version is passed over.
"""

from __future__ import annotations

from fettle.facts.typed_document import TypedDocument


class GitSources(TypedDocument, extra="ignore"):
    """The sources of a run: `commit` is None outside git, `source` digests the files."""

    commit: str | None
    dirty: bool
    source: str


class PublishedRelease(TypedDocument, extra="ignore"):
    """What was made of a run, and where it lies below the project."""

    bento: str
    name: str
    model_version: str
    run_id: str
    digest: str
    folder: str
    git: GitSources
    data: str
    passed: bool


class StageTime(TypedDocument, extra="ignore"):
    """How long a stage took in the run; `cached` says that it did not run."""

    name: str
    seconds: float | None
    cached: bool


class LastRun(TypedDocument, extra="ignore"):
    """A finished run of a tree; `finished` is its time, ISO 8601."""

    release: PublishedRelease
    stages: tuple[StageTime, ...]
    finished: str
