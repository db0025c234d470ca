"""Traceback of the user's own code: the file and line of it that an exception came through."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

_PACKAGES = ("site-packages", "dist-packages")
_HERE = Path(__file__).resolve().parent
_OURS = (_HERE, _HERE.parent / "stages", _HERE.parent / "flows")


def line(err: BaseException, roots: Iterable[Path]) -> str:
    """Say ", at FILE line N (code)" for the deepest line below `roots`; "" where there is none.

    What is installed, and fettle itself, is no user's code, wherever it lies.
    """
    folders = list(roots)
    if isinstance(err, SyntaxError) and err.filename:
        file = name(Path(err.filename), folders)
        if file is not None:
            return f", at {file} line {err.lineno} ({(err.text or '').strip()})"
    for frame in reversed(traceback.extract_tb(err.__traceback__)):
        file = name(Path(frame.filename), folders)
        if file is not None:
            return f", at {file} line {frame.lineno} ({frame.line})"
    return ""


def name(path: Path, folders: Iterable[Path]) -> str | None:
    """Return `path` as seen from the folder it lies in; None for a file that is not the user's."""
    full = path.resolve()
    if any(part in _PACKAGES for part in full.parts) or not full.is_file():
        return None
    environment = Path(sys.prefix).resolve()
    if any(full.is_relative_to(folder) for folder in (*_OURS, environment)):
        return None
    for folder in (one.resolve() for one in folders):
        if full.is_relative_to(folder):
            return full.relative_to(folder).as_posix()
    return None
