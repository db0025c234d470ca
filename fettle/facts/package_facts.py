"""Package facts: the release that was made; and release.json, which describes it to a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.evaluate_facts import EstimatedFigure, Evidence
from fettle.facts.typed_document import Measured, TypedDocument


class PackageFacts(TypedDocument):
    """Facts of `stages/package.py`; `digest` is the release's identity (hex)."""

    digest: str
    target: str
    passed: bool
    size_bytes: int


class RuntimeEntry(TypedDocument):
    """What runs the release's model: the runtime, the file it opens, the file's precision, and the
    threads that its latency was taken with: it is served with as many.
    """

    name: str
    entry: str
    precision: str
    threads: int = 1


class InputSignature(TypedDocument):
    """The tensor that a model takes; a size of None is free, values lie from `low` to `high`."""

    dtype: str
    shape: tuple[int | None, ...]
    low: int
    high: int


class OutputSignature(TypedDocument):
    """The tensor that a model answers with; probabilities have their softmax in the model."""

    kind: Literal["logits", "probabilities"]
    dtype: str
    shape: tuple[int | None, ...]


class DataOrigin(TypedDocument):
    """The data a model was made from; `ingest` and `validate` are digests of artefacts."""

    source: str
    digest: str
    ingest: str
    validate_: str = Field(alias="validate")


class TargetFile(TypedDocument):
    """A file of an additional target, below its folder."""

    path: str
    sha256: str


class AdditionalTarget(TypedDocument):
    """targets/NAME/target.json: files for hardware that is not here, and how far they are verified.

    `digest` is over all its files; `drop` is paired, of the budget's metric on validation, and
    `churn` the share of answers that changed, both against the float model. Nothing was timed:
    `estimates` are a vendor's figures.
    """

    target: str
    hardware: str
    runtime: str
    version: str | None
    precision: str
    dialect: str | None
    entry: str
    files: tuple[TargetFile, ...]
    digest: str
    evidence: Evidence
    answered_by: str | None
    reason: str
    parity: AnswerParity | None
    drop: Measured | None
    churn: Measured | None
    accelerator_share: float | None
    estimates: tuple[EstimatedFigure, ...]
    next_command: str | None


class ReleaseDocument(TypedDocument):
    """release.json; `files` digests every other file of the release.

    `targets` are the additional ones, {name: digest of its files}; absent where there is none.
    """

    schema_: str = Field(alias="schema")
    name: str
    target: str
    runtime: RuntimeEntry
    input: InputSignature
    output: OutputSignature
    data: DataOrigin
    passed: bool
    code: str = ""
    versions: Mapping[str, str] = Field(default_factory=dict)
    files: Mapping[str, str] = Field(default_factory=dict)
    targets: Mapping[str, str] = Field(default_factory=dict)
