"""Lineage graph of a project, walked both ways: from a commit to the traffic, and back.

    commit, data, model ──▶ run ──▶ artifact ──▶ file ──▶ evidence ──▶ choice ──▶ gate
                                                            gate, file ──▶ release ──▶ bento,
                                                    version, rollout ──▶ traffic

Nothing is deduced: a release carries the manifests of its artefacts, each naming those that it was
made of (fettle/release/carried_evidence.py), the run that published it wrote its own record
(lineage_record.py), and a rollout's journal names its releases. What has no maker here is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fettle.errors import UserError
from fettle.facts.lineage_document import LineageDocument, PublishingRun
from fettle.json_values import JsonObject
from fettle.manifest import SHORT, digest_of, sha256_file
from fettle.release import lineage_record

KINDS = (
    *("commit", "sources", "data", "model", "run", "artifact", "file", "evidence", "choice"),
    *("gate", "release", "bento", "version", "rollout", "traffic"),
)
ROLES = {"evaluate": "evidence", "select": "choice", "verdict": "gate"}
CHAMPION = "champion of"  # what a rollout compared with, not what it was made of
PREFIX_MIN = 4  # fewer digits name too much


@dataclass(slots=True)
class LineageNode:
    """A thing that was made or imported; `names` are what one may ask for it by."""

    kind: str
    key: str
    label: str
    names: set[str]
    imported: bool = False

    def to_json(self) -> JsonObject:
        """Return its JSON form."""
        return {
            "kind": self.kind,
            "id": self.key.partition(":")[2],
            "label": self.label,
            "imported": self.imported,
        }


@dataclass(frozen=True, slots=True)
class RecordedRollout:
    """A rollout as its journal tells: the releases (12 digits), where it stands, and why."""

    rollout: str
    challenger: str
    champion: str | None
    state: str
    reason: str


@dataclass
class LineageGraph:
    """Nodes by key, and edges (from, to, how): what is made of what."""

    nodes: dict[str, LineageNode] = field(default_factory=dict)
    edges: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, kind: str, name: str, label: str, *more: str, imported: bool = False) -> str:
        """Add a node, or another label of one that is there; return its key."""
        key = f"{kind}:{name}"
        node = self.nodes.setdefault(key, LineageNode(kind, key, label, {name, *more}, imported))
        node.names |= {name, *more}
        if label not in node.label.split(", "):
            node.label += f", {label}"
        return key

    def link(self, source: str, target: str, how: str) -> None:
        """Say that `target` was made of, or by, `source`."""
        if source != target:
            self.edges.setdefault((source, target), how)

    def find(self, asked: str) -> list[LineageNode]:
        """Return the nodes that a name, or the start of a digest, stands for.

        A name that fits exactly goes before the starts of others. Raises UserError for none, or
        for the start of several things.
        """
        exact = [node for node in self.nodes.values() if asked in node.names]
        if exact:
            return exact
        begun = {
            name: node
            for node in self.nodes.values()
            for name in node.names
            if len(asked) >= PREFIX_MIN and name.startswith(asked)
        }
        if len(begun) == 1:
            return list(begun.values())
        whole = {name for node in self.nodes.values() for name in node.names}
        several = {
            name for name in begun if not any(name != one and one.startswith(name) for one in whole)
        }
        if len(several) == 1:
            return [begun[next(iter(several))]]
        raise UserError(
            f"no lineage of {asked!r}" if not begun else f"{asked!r} is the start of several names",
            got=", ".join(sorted(f"{begun[name].kind} {name}" for name in several)[:6])
            or f"{len(self.nodes)} things are recorded, none of that name",
            rule="a Bento tag, a model version (NAME/VERSION), a run, a commit, the sha256 of a "
            f"file or a file itself, a rollout; {PREFIX_MIN} digits of a digest or more",
            fix="give more of it"
            if begun
            else "see `ls releases`, or `fettle run`, which "
            "publishes a release and writes its lineage",
        )

    def walk(self, start: Iterable[LineageNode], *, up: bool) -> list[LineageNode]:
        """Return all that the nodes were made of (`up`), or that was made of them, in order."""
        steps: dict[str, list[str]] = {}
        for (source, target), how in self.edges.items():
            if up and how != CHAMPION:
                steps.setdefault(target, []).append(source)
            elif not up:
                steps.setdefault(source, []).append(target)
        begun = [node.key for node in start]
        seen, queue = set(begun), list(begun)
        while queue:
            for key in steps.get(queue.pop(), ()):
                if key not in seen:
                    seen.add(key)
                    queue.append(key)
        found = (self.nodes[key] for key in seen - set(begun))
        return sorted(found, key=lambda node: (KINDS.index(node.kind), node.label, node.key))


def build(
    releases: Path, rollouts: Sequence[RecordedRollout], serving: Mapping[str, str]
) -> LineageGraph:
    """Read every release below `releases`; `serving` is {release: address} of what has traffic."""
    graph = LineageGraph()
    known: dict[str, str] = {}  # {12 digits: key}
    for folder, record in lineage_record.read_all(releases):
        known[folder.name] = _add_release(graph, folder, record)
    for one in rollouts:
        verdict = f"{one.state}: {one.reason}" if one.reason else one.state
        key = graph.add("rollout", one.rollout, verdict)
        for short, how in ((one.challenger, "tried in"), (one.champion, CHAMPION)):
            if short:
                graph.link(_release_key(graph, known, short), key, how)
    for short, address in serving.items():
        traffic = graph.add("traffic", short, f"served at {address}")
        key = _release_key(graph, known, short)
        graph.link(key, traffic, "serves")
        for one in rollouts:
            if one.challenger == short and one.state == "promoted":
                graph.link(f"rollout:{one.rollout}", traffic, "decided")
    return graph


def _release_key(graph: LineageGraph, known: Mapping[str, str], short: str) -> str:
    """Return the key of a release by its 12 digits; one that is gone is said to be."""
    if short in known:
        return known[short]
    return graph.add("release", short, "no longer in releases/", imported=True)


def _add_release(graph: LineageGraph, folder: Path, record: LineageDocument | None) -> str:
    stated = _json(folder / "release.json")
    files = cast(Mapping[str, str], stated.get("files") or {})
    digest = digest_of({**files, "release.json": sha256_file(folder / "release.json")})
    label = f"{stated.get('name')} for {stated.get('target')}"
    key = graph.add("release", digest, label, folder.name, imported=record is None)
    for path, sha256 in files.items():
        if path.startswith("evidence/"):  # the manifests: each is an artefact's node
            continue
        graph.link(graph.add("file", sha256, path), key, "carried")
    artifacts = _add_artifacts(graph, folder, files)
    if gate := artifacts.get("verdict"):
        graph.link(gate, key, "judged")
    for run in record.runs if record else ():
        _add_run(graph, run, artifacts, key)
        bento = graph.add("bento", run.bento, "built of the release")
        graph.link(key, bento, "built")
        name = f"{record.name}/{run.model_version}" if record else ""
        version = graph.add("version", name, "registered in MLflow", f"models:/{name}")
        graph.link(key, version, "registered")
    if record is None and "ingest" in artifacts:
        data = cast(Mapping[str, str], stated.get("data") or {})
        root = graph.add("data", str(data.get("digest")), str(data.get("source")), imported=True)
        graph.link(root, artifacts["ingest"], "read")
    return key


def _add_artifacts(graph: LineageGraph, folder: Path, carried: Mapping[str, str]) -> dict[str, str]:
    """Add the artefacts of the manifests that a release carries; return {address: key}."""
    sealed = dict(_manifests(folder, carried))
    keys = {}
    for address, (digest, _) in sealed.items():
        kind = ROLES.get(address.partition("@")[0], "artifact")
        keys[address] = graph.add(kind, digest, address)
    for address, (_, doc) in sealed.items():
        stage, _, target = address.partition("@")
        for file in cast(Sequence[Mapping[str, str]], doc["files"]):
            made = graph.add("file", file["sha256"], f"{address}/{file['path']}")
            graph.link(keys[address], made, "made")
            if stage == "export" and (measured := keys.get(f"evaluate@{target}")):
                graph.link(made, measured, "measured")
        for above, digest in cast(Mapping[str, str], doc["inputs"]).items():
            named = f"{above}@{target}" if above == "export" else above
            kind = ROLES.get(named.partition("@")[0], "artifact")
            graph.link(graph.add(kind, digest, named), keys[address], "read")
    return keys


def _manifests(
    folder: Path, carried: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, JsonObject]]]:
    for path, digest in carried.items():
        room, _, name = path.partition("/")
        if room == "evidence" and name.endswith(".json") and name != "choice.json":
            doc = _json(folder / path)
            if {"files", "inputs", "stage"} <= set(doc):
                yield name.removesuffix(".json"), (digest, doc)


def _add_run(
    graph: LineageGraph, run: PublishingRun, artifacts: Mapping[str, str], release: str
) -> None:
    children = [stage.run_id for stage in run.stages if stage.run_id]
    key = graph.add("run", run.run_id, f"finished {run.finished}", *children)
    commit, dirty = run.git.commit, ", with changes that were not committed" * run.git.dirty
    code = (
        graph.add("commit", commit, f"the project's sources{dirty}")
        if commit
        else graph.add("sources", run.git.source, "the project's sources, outside git")
    )
    data = graph.add("data", run.data, run.source, imported=True)
    roots = [code, data]
    for path, sha256 in run.model.files.items():
        model = graph.add("model", sha256, f"{run.model.family} {path}", imported=True)
        roots.append(model)
        if "finetune" in artifacts:
            graph.link(model, artifacts["finetune"], "read")
    for root in roots:
        graph.link(root, key, "read")
    if "ingest" in artifacts:
        graph.link(data, artifacts["ingest"], "read")
    for stage in run.stages:
        if stage.digest:
            for made in artifacts.values():
                if made.endswith(stage.digest):
                    graph.link(key, made, "reused" if stage.cached else "made")
    graph.link(key, release, "published")


def _json(path: Path) -> JsonObject:
    """Read a JSON object; empty where there is none: what is broken has no lineage."""
    try:
        doc = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return doc if isinstance(doc, dict) else {}


def short(name: str) -> str:
    """Shorten a digest; other names stay whole."""
    return name[:SHORT] if len(name) in (32, 40, 64) and name.isalnum() else name
