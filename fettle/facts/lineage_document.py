"""Lineage record of a release, `releases/DIGEST.lineage.json`: the runs that published it.

Written by the run itself when it publishes. It lies beside the folder, as the signatures do: the
folder's digest is of what was made, and two runs may make the same. It outlives an upgrade, so that
a key of another version is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fettle.facts.last_run import GitSources
from fettle.facts.typed_document import TypedDocument

SCHEMA: Literal["fettle.lineage/1"] = "fettle.lineage/1"


class BaseModelFiles(TypedDocument, extra="ignore"):
    """The user's own model and code, {path: sha256}; none where the family brings all it needs."""

    family: str
    files: Mapping[str, str]


class StageOfRun(TypedDocument, extra="ignore"):
    """One stage of a run; `cached` says that its artefact was there already, `run_id` is MLflow's
    run of the stage.
    """

    name: str
    cached: bool
    digest: str | None
    run_id: str | None


class PublishingRun(TypedDocument, extra="ignore"):
    """One run that published the release; `data` digests the content that `source` gave."""

    run_id: str
    finished: str
    bento: str
    model_version: str
    git: GitSources
    source: str
    data: str
    model: BaseModelFiles
    passed: bool
    stages: tuple[StageOfRun, ...]


class LineageDocument(TypedDocument, extra="ignore"):
    """The record: `digest` is the release's, `runs` are oldest first."""

    schema_: Literal["fettle.lineage/1"]
    digest: str
    name: str
    runs: tuple[PublishingRun, ...]
