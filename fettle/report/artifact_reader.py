"""Artifact reader: a run's sealed manifests, records, inputs and `.fettle/last.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fettle import manifest
from fettle.errors import ProjectError
from fettle.facts.typed_document import JsonFile, TypedDocument
from fettle.json_values import JsonObject
from fettle.manifest import Manifest, UnreadFacts
from fettle.report.run_records import LastRun, StageRecord

Sealed = Manifest[UnreadFacts]
StageModel = TypeVar("StageModel", bound=TypedDocument)
FileModel = TypeVar("FileModel", bound=JsonFile)

# Its numbers all stand in the manifest, and hashing a large data set again would cost minutes.
UNVERIFIED = "ingest"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactTree:
    """`artifacts` and `records` by address ("compress", "export@x86_ort_int8")."""

    project: Path
    artifacts: Mapping[str, Sealed]
    records: Mapping[str, StageRecord]
    errors: Mapping[str, JsonObject]
    last: LastRun | None

    def folder(self, address: str) -> Path:
        """Return the folder of an artefact."""
        return self.project / "artifacts" / address.replace("@", "/")

    def facts(self, address: str, model: type[StageModel]) -> StageModel | None:
        """Read a stage's facts; None when it left none.

        Raises ProjectError where they do not fit the model.
        """
        found = self.artifacts.get(address)
        return found.typed(model, self.folder(address)).facts if found else None

    def matrix(self, stage: str) -> dict[str, Sealed]:
        """Return {target: manifest} of a matrix stage, in the order the last run took them."""
        found = {
            address.partition("@")[2]: sealed
            for address, sealed in self.artifacts.items()
            if address.startswith(f"{stage}@")
        }
        ran = [run.name.partition("@") for run in (self.last.stages if self.last else ())]
        order = [target for name, _, target in ran if name == stage and target in found]
        return {name: found[name] for name in [*order, *sorted(found.keys() - set(order))]}

    def document(self, address: str, name: str, model: type[FileModel]) -> FileModel | None:
        """Read a JSON file of an artefact; None when the stage did not write it.

        Raises ProjectError where it does not fit the model.
        """
        path = self.folder(address) / name
        return model.read(path) if path.is_file() else None

    def input(self, name: str, model: type[FileModel]) -> FileModel | None:
        """Read inputs/NAME; None when it is not there.

        Raises ProjectError where it does not fit the model.
        """
        path = self.project / "inputs" / name
        doc = _read(path)
        return None if doc is None else model.from_json(doc, path)

    def outdated(self) -> list[str]:
        """Say which artefacts were made from others than those that lie beside them."""
        stale: dict[str, list[str]] = {}
        for address, sealed in self.artifacts.items():
            for upstream, digest in sealed.inputs.items():
                other = self.artifacts.get(upstream)
                if other and other.digest != digest:
                    stale.setdefault(upstream, []).append(address)
        return [
            f"made from an earlier {upstream}: {', '.join(sorted(made))}; `fettle run` renews them"
            for upstream, made in sorted(stale.items())
        ]


def read(project: Path) -> ArtifactTree:
    """Read the tree of a project.

    Raises ProjectError when no stage has finished yet, TamperedError when an artefact's files do
    not match its manifest.
    """
    artifacts = {
        address: manifest.read(folder, verify=address != UNVERIFIED)
        for address, folder in _sealed(project / "artifacts")
    }
    if not artifacts:
        raise ProjectError(
            f"there is nothing to report in {project}",
            got="no finished stage under artifacts/",
            rule="the report shows the last run of this project",
            fix="run `fettle run` first",
        )
    last = project / ".fettle" / "last.json"
    finished = last.stat().st_mtime if last.is_file() else 0.0
    records: dict[str, StageRecord] = {}
    errors: dict[str, JsonObject] = {}
    for path in sorted((project / "records").glob("*.json")):
        doc = _read(path)
        if doc is None:
            continue
        if path.name.endswith(".error.json"):
            if path.stat().st_mtime < finished:
                continue  # of an earlier run: the stage was since restored from the cache
            errors[path.name.removesuffix(".error.json")] = doc
        else:
            records[path.stem] = StageRecord.from_json(doc, path)
    done = _read(last)
    return ArtifactTree(
        project=project,
        artifacts=artifacts,
        records=records,
        errors=errors,
        last=None if done is None else LastRun.from_json(done, last),
    )


def not_run(stage: str, tree: ArtifactTree) -> str:
    """Say why a stage's artefact is missing."""
    return f"{stage} failed" if stage in tree.errors else f"{stage} has not run"


def _sealed(artifacts: Path) -> list[tuple[str, Path]]:
    """List (address, folder) of every sealed artefact: a stage's own, or one a target."""
    found = []
    for stage in sorted(p for p in artifacts.glob("*") if p.is_dir()):
        if (stage / manifest.NAME).is_file():
            found.append((stage.name, stage))
            continue
        found += [
            (f"{stage.name}@{folder.name}", folder)
            for folder in sorted(stage.glob("*"))
            if (folder / manifest.NAME).is_file()
        ]
    return found


def _read(path: Path) -> JsonObject | None:
    """Read a small JSON file; None when missing, empty or cut off by a kill."""
    try:
        doc = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return doc if isinstance(doc, dict) else None
