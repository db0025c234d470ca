"""Say which sources a run used: git's commit, whether the tree was dirty, and a digest of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TypedDict

from fettle.manifest import sha256_file

LEFT_OUT = {".git", ".venv", ".fettle", ".dvc", "artifacts", "inputs", "records", "releases"}

RESULT = "dvc.lock"  # tracked perhaps, and yet what a run made, not what it was made of


class Sources(TypedDict):
    """`commit` is None outside git; `source` digests every source file as it lies there."""

    commit: str | None
    dirty: bool
    source: str


def describe(root: Path) -> Sources:
    """Describe the sources below `root`."""
    lines = [f"{path.as_posix()} {sha256_file(root / path)}" for path in source_files(root)]
    return Sources(
        commit=_git(root, "rev-parse", "HEAD"),
        dirty=bool(_git(root, "status", "--porcelain", "--", ".", f":!{RESULT}")),
        source=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    )


def source_files(root: Path) -> list[Path]:
    """List the source files, relative and sorted: what git tracks or would track, else all."""
    listed = _git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    top = _git(root, "rev-parse", "--show-toplevel")
    if listed is not None and top is not None and Path(top).resolve() == root.resolve():
        paths = [Path(p) for p in listed.split("\0") if p]
    else:
        found = (p.relative_to(root) for p in root.rglob("*"))
        paths = [p for p in found if p.parts[0] not in LEFT_OUT and "__pycache__" not in p.parts]
    return sorted(p for p in set(paths) if (root / p).is_file() and p != Path(RESULT))


def _git(root: Path, *command: str) -> str | None:
    """Run git; None when there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip("\n")
