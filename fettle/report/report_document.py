"""Report document: the types of what `fettle report --json` prints; schema.json is made of them.

A stable interface, "fettle.report/1": keys are added, never renamed or removed. `make schema`
writes schema.json from these types, with the text below each key; tests hold that it is so. A value
nobody took is null, and `missing` says why, by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fettle.facts.evaluate_facts import ProfileDocument
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.quantities import (
    Count,
    Images,
    Seconds,
)
from fettle.facts.search_document import SearchDocument
from fettle.facts.typed_document import Options, TypedDocument
from fettle.report.report_measurements import (
    CompressionRatios,
    QualityTable,
    TargetRow,
    YardstickRow,
)

SCHEMA: Literal["fettle.report/1"] = "fettle.report/1"


@dataclass(frozen=True, slots=True)
class Gap:
    """A piece that is not there."""

    path: str
    """Its place in this document: targets[NAME].speedup, compression.macs_ratio."""
    reason: str
    """Why it is not there."""


@dataclass(frozen=True, slots=True)
class StageFacts:
    """One stage of the last run."""

    name: str
    """The stage; with its target as export@TARGET."""
    seconds: Seconds | None
    """Time spent in the last run; null when no run said so."""
    cached: bool | None
    """Whether its artefact came from the cache; null when no run said so."""
    made_seconds: Seconds | None = None
    """What making the artefact took, in the run that made it; null when it was made elsewhere."""


@dataclass(frozen=True, slots=True)
class FailureFacts:
    """A stage that failed."""

    stage: str
    """The stage; with its target as export@TARGET."""
    kind: str
    """Whose fault it is: user, ours, transient."""
    text: str
    """The error as the terminal showed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What the data checks let through."""

    passed: bool
    """Whether the data may be learnt from."""
    rows: Images
    """Images that were checked."""
    quarantined: Images
    """Images that were set aside."""
    by_rule: Mapping[str, Images]
    """Images set aside by each rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """The sources of a run."""

    commit: str | None
    """The commit (40 hex digits); null outside git."""
    dirty: bool
    """Whether the files differed from the commit."""
    source: str
    """Digest of the source files (64 hex digits)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseSection:
    """What was made of the run; null until `fettle run` has published it."""

    bento: str | None = None
    """Tag of the Bento: NAME:VERSION."""
    model_version: str | None = None
    """Version in MLflow's model registry."""
    run_id: str | None = None
    """Id of the run in MLflow."""
    digest: str | None = None
    """Digest of the release folder (64 hex digits)."""
    git: Git | None = None
    """The sources it was made from."""
    data: str | None = None
    """Digest of the data's content (64 hex digits)."""
    folder: str | None = None
    """The release folder, relative to the project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Whether the chosen file may be released."""

    passed: bool | None
    """Whether every bound held on test; null before the verdict stage."""
    reasons: Sequence[str]
    """Each bound with what was found, as a sentence."""
    chosen: str | None
    """The target whose file ships; null before the select stage."""
    why: str | None
    """Why that target was chosen."""


class SourceFingerprint(TypedDocument, extra="allow"):
    """What the data is made of, as inputs/source.json holds it; a source may add its own keys."""

    source: str | None = None
    """The source's name in params.yaml."""
    digest: str | None = None
    """Digest of the data's content (64 hex digits)."""
    images: Images | None = None
    """Images that the source has."""


class DataSource(TypedDocument):
    """Where the images come from, before ingest has read them."""

    source: str | None
    """The source's name in params.yaml; null when inputs/source.json is not there."""
    fingerprint: SourceFingerprint
    """The content that was asked for."""


class IngestedData(IngestFacts):
    """Where the images come from, and what ingest found."""

    fingerprint: SourceFingerprint
    """The content that was asked for."""

    @classmethod
    def of(cls, facts: IngestFacts, fingerprint: SourceFingerprint) -> IngestedData:
        """Put the two together."""
        given = {name: getattr(facts, name) for name in facts.model_fields_set}
        return cls.model_validate({**given, "fingerprint": fingerprint})


class RecordedMachine(TypedDocument, extra="allow"):
    """What tells this machine from another, as inputs/machine.json holds it."""

    cpu: str | None = None
    """The processor's name."""
    flags: Sequence[str] = ()
    """Its instructions that change which kernels run."""
    cores: Count | None = None
    """Logical cores that this process may use."""
    os: str | None = None
    """The operating system."""
    machine: str | None = None
    """The architecture: x86_64, aarch64."""
    python: str | None = None
    """The version of Python that measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnvironment:
    """The machine and the packages."""

    machine: RecordedMachine | None
    """The machine that measured; null when inputs/machine.json is not there."""
    python: str
    """The version of Python that wrote this document."""
    versions: Mapping[str, str | None]
    """Version of each package that changes a result; null for one that is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDocument:
    """What `fettle report --json` prints. Within version 1 keys are added, never renamed or
    removed. A value that was not measured is null, and `missing` says why.
    """

    schema: Literal["fettle.report/1"]
    """Name and version of this format."""
    name: str
    """The release's name, else the folder's."""
    finished: str | None
    """ISO 8601 time of the last finished run."""
    verdict: GateVerdict
    """Whether the chosen file may be released."""
    stages: Sequence[StageFacts]
    """The stages of the last run, in its order."""
    failures: Sequence[FailureFacts]
    """The stages that failed since the last finished run."""
    validation: Validation | None
    """What the data checks let through."""
    quality: QualityTable | None
    """The float model and the shipped file on test images."""
    compression: CompressionRatios
    """How many times less the shipped file has than the float model."""
    baseline: YardstickRow
    """The float model, on validation."""
    plain: YardstickRow
    """The compressed model in fp32, on validation."""
    targets: Sequence[TargetRow]
    """Every target, in the order of the run."""
    recipe: Sequence[Options] | None
    """The steps that made the model, as compress.recipe would hold them; null when compress did not
    say.
    """
    search: SearchDocument | None
    """Every recipe tried with its verdict, the front and how well it was foreseen, as compress's
    search.json holds it; null for a recipe that was given.
    """
    profile: ProfileDocument | None
    """Where the time of one image goes in the float model (before) and in the chosen target's file
    (after), by the runtime's profiler, as evaluate's profile.json holds it.
    """
    release: ReleaseSection
    """What was made of the run."""
    data: IngestedData | DataSource
    """Where the images come from."""
    licences: Mapping[str, str | None]
    """Licences of the data and the model, SPDX where it is one; null where nobody states it."""
    environment: RunEnvironment
    """The machine and the packages."""
    missing: Sequence[Gap]
    """Every piece that is not there, with its reason."""
    warnings: Sequence[str]
    """What a reader should know: artefacts that are out of date."""
