"""Git state of a run's sources: the commit, whether the tree was dirty, and a digest of it.

Sources are what a run can need of the project's own: code and settings, of kilobytes. A virtual
environment, installed packages and a folder of data are none, whether git knows them or not.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from fettle.manifest import sha256_file

# Of the project's own folder only: src/inputs/ may well be code.
LEFT_OUT = {"artifacts", "inputs", "records", "releases", "report"}
# Wherever they lie; a folder that begins with a dot is none either (.git, .venv, .fettle, .dvc).
INSTALLED = {"venv", "virtualenv", "node_modules", "site-packages", "__pypackages__", "__pycache__"}
# What marks a folder as an environment or a cache: by venv, by conda, by the cache-tag standard.
MARKERS = ("pyvenv.cfg", "conda-meta", "CACHEDIR.TAG")
CODE = {".py", ".pyi", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".lock", ".sh"}
# Sources where Python lies beside them, or at the top; else the notes of a data set.
TEXT = {".md", ".txt", ".json", ".html", ".css", ".jinja", ".conf"}
WHOLE = "bentos"  # a service travels with whatever lies beside it
MAX_BYTES = 1_000_000  # requirements.lock with its digests has half of it; a table of labels more

# tracked perhaps, and yet what a run made, not what it was made of
RESULTS = ("dvc.lock", "verdicts.jsonl")


class GitState(TypedDict):
    """`commit` is None outside git; `source` digests every source file as it lies there."""

    commit: str | None
    dirty: bool
    source: str


def describe(root: Path) -> GitState:
    """Describe the sources below `root`."""
    lines = [f"{path.as_posix()} {sha256_file(root / path)}" for path in source_files(root)]
    text = "\n".join(lines)
    return GitState(
        commit=_git(root, "rev-parse", "HEAD"),
        dirty=bool(_git(root, "status", "--porcelain", "--", ".", *(f":!{r}" for r in RESULTS))),
        source=hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest(),
    )


def source_files(root: Path) -> list[Path]:
    """List the source files, relative and sorted: of what git tracks or would track, else of all.

    A file that cannot be read is left out; see `unreadable`.
    """
    return [path for path in _sources(root) if os.access(root / path, os.R_OK)]


def unreadable(root: Path) -> list[Path]:
    """List the source files, relative and sorted, that this user may not read."""
    return [path for path in _sources(root) if not os.access(root / path, os.R_OK)]


def _sources(root: Path) -> list[Path]:
    # Nothing listed: no git, or the folder itself is ignored, as the workspaces are.
    listed = _git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    found = {Path(p) for p in listed.split("\0") if p} if listed else set(_walk(root))
    homes = {Path(), *(path.parent for path in found if path.suffix == ".py")}
    foreign: dict[Path, bool] = {}
    kept = (p for p in found if _is_source(root, p, homes) and not _below(root, p, foreign))
    return sorted(p for p in kept if p.as_posix() not in RESULTS)


def _below(root: Path, path: Path, foreign: dict[Path, bool]) -> bool:
    """Tell whether a file lies in a foreign folder; `foreign` keeps what is known of folders."""
    for folder in [*path.parents][:-1]:
        if folder not in foreign:
            foreign[folder] = _is_foreign(root, folder)
        if foreign[folder]:
            return True
    return False


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below `root`, relative, without opening a folder that holds no sources."""
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        relative = here.relative_to(root)
        folders[:] = [name for name in folders if not _is_foreign(root, relative / name)]
        yield from (relative / name for name in files)


def _is_foreign(root: Path, folder: Path) -> bool:
    """Tell whether a folder (relative to `root`) holds what others made."""
    name = folder.name
    if name.startswith(".") or name in INSTALLED or (len(folder.parts) == 1 and name in LEFT_OUT):
        return True
    return any((root / folder / marker).exists() for marker in MARKERS)


def _is_source(root: Path, path: Path, homes: set[Path]) -> bool:
    """Tell whether a file is code, or a small text beside some (its folder is among `homes`)."""
    suffix, file = path.suffix.lower(), root / path
    known = suffix in CODE or (suffix in TEXT and path.parent in homes)
    if not known and path.parts[0] != WHOLE:
        return False
    return file.is_file() and file.stat().st_size <= MAX_BYTES


def _git(root: Path, *command: str) -> str | None:
    """Run git; None when there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a file's name may be of any bytes
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip("\n")
