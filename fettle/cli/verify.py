"""`fettle verify R`: a release's signature, and every figure that it states derived again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from fettle.cli.run import JsonOption

HELD = "latency, energy, memory, parity and emulated accuracy: by the digests alone"


def verify(
    release: Annotated[
        str,
        typer.Argument(help="A release's folder, its Bento tag, digest (its start), or its name."),
    ],
    key: Annotated[
        Path | None,
        typer.Option(help="The signer's public key (PEM); your own if left out."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check a release's signature, and derive its figures again from what it carries.

    Needs no network, no torch and no data.

    Example: fettle verify releases/8b6e1e182bf1
    """
    from fettle.errors import UserError
    from fettle.release import release_verification, signing
    from fettle.serving import release_bundle

    begun = time.perf_counter()
    if key is not None and not key.is_file():
        raise UserError(f"there is no public key {key}", fix="name the signer's .pub file")
    folder = find_release(release).resolve()
    signing.verify(folder, signing.of_release(folder), os.environ, public=key)
    _, digest = release_bundle.verify(folder)
    check_name(folder, digest)
    if ":" in release:
        from fettle.adapters import bento_store

        bento = bento_store.bento_folder(release)
        signing.verify(bento, signing.of_bento(folder), os.environ, public=key)
    report = report_of(folder, digest)
    figures = release_verification.derive(folder, report)
    release_verification.refuse(figures, folder)
    seconds = time.perf_counter() - begun
    if json_:
        doc = {"release": digest, "signed": True, "derived": figures.counted, "seconds": seconds}
        print(json.dumps({"schema": "fettle.verify/1", **doc, "held_by_digest": HELD}, indent=1))
        return
    print(f"{folder.name} is what was signed, and every figure follows from what it carries")
    for part, count in figures.counted.items():
        print(f"  {part:<10} {count:>6,} derived again")
    print(f"  {HELD}")
    if report is None:
        print("  no report.json of this release here")
    print(f"  {seconds:.1f} s")


def check_name(folder: Path, digest: str) -> None:
    """Refuse a folder that is named after another release's digest."""
    from fettle.errors import TamperedError
    from fettle.manifest import SHORT

    name = folder.name
    named = len(name) == SHORT and all(letter in "0123456789abcdef" for letter in name)
    if named and not digest.startswith(name):
        raise TamperedError(
            f"the release {name} is not the one that it is named after",
            got=f"digest {digest[:SHORT]}",
            rule="its folder is named after the digest of its files",
            fix="do not use it; take it from where it was published",
        )


def find_release(named: str) -> Path:
    """Find a release by its folder, its Bento tag, the start of its digest, or its name.

    A name stands for the newest release of that name. Raises ProjectError.
    """
    from fettle import project as projects
    from fettle.cli.predict import find_release as by_digest
    from fettle.release import lineage_record

    if ":" in named and not Path(named).exists():
        return by_digest(named.partition(":")[2])
    if not Path(named).is_dir():
        home = projects.find()
        found = [
            (record.runs[-1].finished if record and record.runs else "", folder)
            for folder, record in lineage_record.read_all(home.releases)
            if name_of(folder) == named
        ]
        if found:
            return max(found)[1]
    return by_digest(named)


def name_of(folder: Path) -> str | None:
    """Return the name that a release states; None when it states none."""
    try:
        return str(json.loads((folder / "release.json").read_text())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def report_of(folder: Path, digest: str) -> Path | None:
    """Return the report.json that tells of this release: that of the project it lies in."""
    root = folder.parent.parent
    for path in (root / "report" / "report.json", *root.glob(".fettle/ws/*/report/report.json")):
        try:
            told = json.loads(path.read_text())["release"]["digest"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if told == digest:
            return path
    return None
