"""Tampers with a copy of a published release; a forger seals, chains and signs it anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fettle import manifest
from fettle.facts.package_facts import ReleaseDocument
from fettle.release import release_verification, released_run, signing
from fettle.report import model_card

Tamper = Callable[[Path], None]


def copied(release: Path, root: Path) -> Path:
    """Copy a release and its signature to releases/ of another place."""
    folder = root / "releases" / release.name
    shutil.copytree(release, folder)
    shutil.copyfile(signing.of_release(release), signing.of_release(folder))
    return folder


def edited(path: str, change: Callable[[Any], Any]) -> Tamper:
    """Change the JSON document `path` of a release, written as fettle writes it."""

    def tamper(release: Path) -> None:
        doc = json.loads((release / path).read_text())
        manifest.write_json(release / path, change(doc) or doc)

    return tamper


def assigned(path: str, keys: str, value: object) -> Tamper:
    """Set one key of a JSON document, "facts.budget.bound"; a callable makes it of the old."""

    def change(doc: Any) -> None:
        *above, last = keys.split("/")
        for key in above:
            doc = doc[int(key) if isinstance(doc, list) else key]
        at = int(last) if isinstance(doc, list) else last
        doc[at] = value(doc[at]) if callable(value) else value

    return edited(path, change)


def replaced(path: str, old: str, new: str) -> Tamper:
    """Replace a text within a file; it must be there."""

    def tamper(release: Path) -> None:
        text = (release / path).read_text()
        assert old in text, f"{old!r} is not in {path}"
        (release / path).write_text(text.replace(old, new, 1))

    return tamper


def columns(path: str, change: Callable[[dict[str, list[Any]]], Mapping[str, list[Any]]]) -> Tamper:
    """Change the columns of a Parquet file."""

    def tamper(release: Path) -> None:
        table = pq.read_table(release / path)
        pq.write_table(pa.table(dict(change(table.to_pydict()))), release / path)

    return tamper


def seal(release: Path) -> None:
    """Write the digests of the changed files into release.json."""
    doc = json.loads((release / "release.json").read_text())
    files = manifest.list_files(release)
    doc["files"] = {f.path: f.sha256 for f in files if f.path != "release.json"}
    manifest.write_json(release / "release.json", doc)


def forge(release: Path, before: Mapping[str, str]) -> None:
    """Chain the changed manifests anew, and write the documents that tell of them."""
    old = dict(before)
    for _ in range(8):  # a change reaches all below it
        now = {path: manifest.sha256_file(release / path) for path in old}
        moved = {old[path]: now[path] for path in old if old[path] != now[path]}
        if not moved:
            break
        for path in [*old, "release.json"]:
            text = changed = (release / path).read_text()
            for was, is_ in moved.items():
                changed = changed.replace(was, is_)
            if changed != text:
                (release / path).write_text(changed)
        old = now
    stated = ReleaseDocument.read(release / "release.json")
    run = release_verification.read_run(release, stated)
    manifest.write_json(release / "gate.json", released_run.gate_document(run))
    manifest.write_json(release / "validation.json", released_run.validation_document(run))
    manifest.write_text(release / "card.md", model_card.text(released_run.card(stated, run)))


def manifests(release: Path) -> dict[str, str]:
    """Digest what a forger must chain anew: {path: sha256}."""
    found = release.glob("evidence/*.json")
    return {p.relative_to(release).as_posix(): manifest.sha256_file(p) for p in found}


def sign(release: Path, key: Path | None = None) -> Path:
    """Name the release after what it holds now, and sign it: with `key`, or as this user."""
    signing.of_release(release).unlink()
    renamed = release.with_name(manifest.tree_digest(release)[: manifest.SHORT])
    release.rename(renamed)
    environ = {**os.environ, **({"FETTLE_SIGNING_KEY": str(key)} if key else {})}
    signing.sign(renamed, signing.of_release(renamed), environ)
    return renamed
