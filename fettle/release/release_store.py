"""Release store, content-addressed: a folder named by its digest, never changed, no DVC out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fettle import manifest
from fettle.errors import TamperedError


def digest(folder: Path) -> str | None:
    """Digest a release folder; None when there is none."""
    return manifest.tree_digest(folder) if folder.is_dir() else None


def publish(package: Path, releases: Path) -> tuple[Path, str]:
    """Copy `package` to `releases/<digest>` in one atomic step; return the folder and the digest.

    Raises TamperedError when that folder exists with other content.
    """
    identity = manifest.tree_digest(package)
    folder = releases / identity[: manifest.SHORT]
    if folder.is_dir():
        verify(folder, identity)
        return folder, identity
    temporary = releases / f".{identity[: manifest.SHORT]}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(package, temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder, identity


def verify(folder: Path, identity: str) -> None:
    """Refuse a published release whose bytes are no longer those of its digest."""
    found = manifest.tree_digest(folder)
    if found != identity:
        raise TamperedError(
            f"the release {folder.name} was changed after it was published",
            got=f"digest {found[: manifest.SHORT]}",
            rule=f"its files must digest to {identity[: manifest.SHORT]}",
            fix=f"delete {folder} and run `fettle run`, which publishes it again",
        )


def verify_named(folder: Path) -> None:
    """Refuse a published release whose bytes do not digest to what its folder is named after."""
    found = manifest.tree_digest(folder)
    if not found.startswith(folder.name):
        raise TamperedError(
            f"the release {folder.name} was changed after it was published",
            got=f"digest {found[: manifest.SHORT]}",
            rule="its folder is named after the digest of its files",
            fix=f"delete {folder} and run `fettle run`, which publishes it again",
        )
