"""Last run's record, `.fettle/last.json`: the release that was published, and the stages' times.

Plain typed dicts: `fettle run` reads it to say that nothing changed, and imports no model for that.
"""

from __future__ import annotations

from typing import TypedDict


class GitDict(TypedDict):
    """The sources of a run: `commit` is None outside git, `source` digests the files."""

    commit: str | None
    dirty: bool
    source: str


class PublishedReleaseDict(TypedDict):
    """What was made of a run, and where it lies below the project."""

    bento: str
    name: str
    model_version: str
    run_id: str
    digest: str
    folder: str
    git: GitDict
    data: str
    passed: bool


class StageTimeDict(TypedDict):
    """How long a stage took in the run; `cached` says that it did not run."""

    name: str
    seconds: float
    cached: bool


class LastRunDict(TypedDict):
    """A finished run; `finished` is its time, ISO 8601."""

    release: PublishedReleaseDict
    stages: list[StageTimeDict]
    finished: str
