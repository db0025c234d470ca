"""Package facts: the release that was made; and release.json, which describes it to a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from fettle.facts.typed_document import TypedDocument


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


class ReleaseDocument(TypedDocument):
    """release.json; `files` digests every other file of the release."""

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
