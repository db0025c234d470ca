"""Write and verify the typed hand-over between stages: digests are made and checked here only.

`artifacts/<stage>[/<target>]/manifest.json` lists the files of the folder (path, sha256, bytes),
the digests of its inputs, its Measures and its facts. It holds no clock, host or absolute path:
same inputs, same bytes. Its own sha256 is the digest of the whole artefact.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar, overload

from fettle.errors import ProjectError, TamperedError
from fettle.measure import Measure

NAME = "manifest.json"
SCHEMA = 1
SHORT = 12  # hex digits of a digest that name a release and its Bento's version


@dataclass(frozen=True, slots=True)
class File:
    """One file of an artefact; `path` is relative to the artefact's folder, with '/'."""

    path: str
    sha256: str
    bytes: int


class FactsModel(Protocol):
    """Model of a stage's facts: see fettle/facts."""

    def to_json(self) -> object:
        """Return the plain JSON."""

    @classmethod
    def from_json(cls, doc: object, path: Path, *, key: str = "") -> Self:
        """Read what stands under `key` of the file `path`; raises ProjectError."""


@dataclass(frozen=True, slots=True)
class UnreadFacts:
    """Facts that nobody looks into: the manifest is read for its digests, files or Measures."""

    document: object

    def to_json(self) -> object:
        """Return them as they were read."""
        return self.document

    @classmethod
    def from_json(cls, doc: object, path: Path, *, key: str = "") -> Self:  # noqa: ARG003  as above
        """Keep them as they are."""
        return cls(doc)


Facts_co = TypeVar("Facts_co", bound=FactsModel, covariant=True)
Model = TypeVar("Model", bound=FactsModel)


@dataclass(frozen=True, slots=True)
class Manifest(Generic[Facts_co]):
    """What a stage hands over; `facts` is the stage's own model, or UnreadFacts."""

    stage: str
    files: tuple[File, ...]
    facts: Facts_co
    inputs: Mapping[str, str] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the canonical text: sorted keys, so that equal content gives equal bytes."""
        doc = {
            "schema": SCHEMA,
            "stage": self.stage,
            "files": [
                {"path": f.path, "sha256": f.sha256, "bytes": f.bytes}
                for f in sorted(self.files, key=lambda f: f.path)
            ],
            "inputs": dict(self.inputs),
            "measures": {name: m.to_dict() for name, m in self.measures.items()},
            "facts": self.facts.to_json(),
        }
        return json.dumps(doc, indent=1, sort_keys=True, allow_nan=False) + "\n"

    def typed(self, model: type[Model], folder: Path) -> Manifest[Model]:
        """Return the same with its facts read as `model`; `folder` is where it lies.

        Raises ProjectError when they do not fit.
        """
        facts = model.from_json(self.facts.to_json(), folder / NAME, key="facts")
        return Manifest(self.stage, self.files, facts, self.inputs, self.measures)

    @property
    def digest(self) -> str:
        """The sha256 (hex) of the canonical text: the identity of the artefact."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hash a file's bytes (hex)."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def list_files(folder: Path) -> tuple[File, ...]:
    """Digest every file below `folder` but its manifest, in sorted order."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / NAME)
    return tuple(
        File(p.relative_to(folder).as_posix(), sha256_file(p), p.stat().st_size) for p in paths
    )


def tree_digest(folder: Path) -> str:
    """Digest a whole folder (hex): its identity, whatever wrote it.

    Bytecode is left out: Python may write it beside the sources of a release that is served.
    """
    files = (f for f in list_files(folder) if "__pycache__" not in f.path.split("/"))
    return digest_of({f.path: f.sha256 for f in files})


def digest_of(digests: Mapping[str, str]) -> str:
    """Digest {path: sha256}: the sha256 over its sorted lines "path sha256"."""
    lines = "".join(f"{path} {sha256}\n" for path, sha256 in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def write(
    folder: Path,
    stage: str,
    *,
    inputs: Mapping[str, str],
    measures: Mapping[str, Measure],
    facts: Model,
) -> Manifest[Model]:
    """Seal `folder`: digest its files and write the manifest last, in one atomic step."""
    manifest = Manifest(stage, list_files(folder), facts, inputs, measures)
    write_text(folder / NAME, manifest.to_json())
    return manifest


@overload
def read(folder: Path, *, verify: bool = True) -> Manifest[UnreadFacts]: ...
@overload
def read(folder: Path, facts: type[Model], *, verify: bool = True) -> Manifest[Model]: ...
def read(
    folder: Path, facts: type[FactsModel] = UnreadFacts, *, verify: bool = True
) -> Manifest[FactsModel]:
    """Read a sealed folder, its facts as the model `facts`; with `verify`, hash every file again.

    Raises ProjectError when there is no manifest or the facts do not fit the model, TamperedError
    when a file is missing, changed or extra.
    """
    path = folder / NAME
    if not path.is_file():
        raise ProjectError(
            f"no finished artefact in {folder}",
            rule="a stage writes manifest.json last, when its work is whole",
            fix="run `fettle run`, which makes it",
        )
    doc = json.loads(path.read_text())
    manifest = Manifest(
        stage=doc["stage"],
        files=tuple(File(**f) for f in doc["files"]),
        inputs=doc["inputs"],
        measures={name: Measure.from_dict(m) for name, m in doc["measures"].items()},
        facts=UnreadFacts(doc["facts"]),
    )
    if verify:
        _verify(folder, manifest)
    return manifest.typed(facts, folder)


def _verify(folder: Path, manifest: Manifest[FactsModel]) -> None:
    listed = {f.path: f for f in manifest.files}
    found = {f.path: f for f in list_files(folder)}
    for path in sorted(listed.keys() | found.keys()):
        if listed.get(path) == found.get(path):
            continue
        state = (
            "missing" if path not in found else "not listed" if path not in listed else "changed"
        )
        raise TamperedError(
            f"{folder / path} is {state}",
            got=found[path].sha256[:12] if path in found else "no file",
            rule="an artefact must match the digest its stage wrote "
            f"({listed[path].sha256[:12] if path in listed else 'none'})",
            fix=f"delete {folder} and run `fettle run`: the good copy comes from the cache",
        )


def write_text(path: Path, text: str) -> None:
    """Write a small file in one atomic step: a reader sees the old text or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, doc: object) -> None:
    """Write a JSON document atomically, sorted, without NaN."""
    write_text(path, json.dumps(doc, indent=1, sort_keys=True, allow_nan=False) + "\n")
