"""Lineage record of a published release: written by the run that publishes it, read offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fettle.errors import FettleError
from fettle.facts.lineage_document import SCHEMA, LineageDocument, PublishingRun

ENDING = ".lineage.json"


def path_of(release: Path) -> Path:
    """Return where the record of a release folder lies."""
    return release.with_name(f"{release.name}{ENDING}")


def append(release: Path, *, digest: str, name: str, run: PublishingRun) -> None:
    """Add a run to the release's record, in one atomic step; the same run again replaces itself.

    A record that cannot be read is begun anew: it is no reason to publish nothing.
    """
    file = path_of(release)
    try:
        before = LineageDocument.read(file).runs if file.is_file() else ()
    except FettleError:
        before = ()
    runs = (*(one for one in before if one.run_id != run.run_id), run)
    LineageDocument(schema_=SCHEMA, digest=digest, name=name, runs=runs).write(file)


def read_all(releases: Path) -> Iterator[tuple[Path, LineageDocument | None]]:
    """Yield every release folder with its record, None where it has none that can be read."""
    for folder in sorted(releases.glob("[!.]*")):
        if (folder / "release.json").is_file():
            try:
                yield folder, LineageDocument.read(path_of(folder))
            except FettleError:
                yield folder, None
