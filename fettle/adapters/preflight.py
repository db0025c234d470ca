"""Preflight: check, before any work, that every folder a run must write into can be written.

A release is built into the user's Bento store and signed with the user's key, both below the home
folder and both after the training. A container's home is often read-only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fettle.adapters import bento_store
from fettle.errors import ProjectError, UserError
from fettle.project import Project
from fettle.release import signing


@dataclass(frozen=True, slots=True)
class Writable:
    """A folder that a run writes into, whether it can, and what to set where it cannot."""

    what: str
    folder: Path
    fix: str
    fault: str | None

    @property
    def ok(self) -> bool:
        """Whether it can be written."""
        return self.fault is None


def folders(project: Project, environ: Mapping[str, str]) -> list[Writable]:
    """Try every folder that a run writes into; nothing is left in them.

    Raises UserError when the user has no home folder and nothing else is named.
    """
    wanted = [
        ("the project", project.root, "make it writable, or copy the project to where it is"),
        (
            "the folder of the signing key",
            signing.key_path(environ).parent,
            f"set {signing.KEY_FILE} to a file in a folder that can be written, or HOME to such a "
            "folder",
        ),
        (
            "the Bento store",
            _store(environ),
            "set BENTOML_HOME to a folder that can be written, or HOME to such a folder",
        ),
    ]
    if signing.key_path(environ).is_file():  # a key that is there is only read
        del wanted[1]
    tried = [Writable(what, folder, fix, fault(folder)) for what, folder, fix in wanted]
    return [*tried, _temporary()]


def refuse(project: Project, environ: Mapping[str, str]) -> None:
    """Raise UserError naming every folder that a run needs and cannot write."""
    bad = [folder for folder in folders(project, environ) if not folder.ok]
    if bad:
        raise ProjectError(
            " and ".join(f"{folder.what} ({folder.folder})" for folder in bad)
            + " cannot be written",
            got="; ".join(dict.fromkeys(str(folder.fault) for folder in bad)),
            rule="a run writes there, so it is tried before the training",
            fix="; ".join(dict.fromkeys(folder.fix for folder in bad)),
        )


def _store(environ: Mapping[str, str]) -> Path:
    given = environ.get("BENTOML_HOME")
    if given:
        return bento_store.store(Path(given))
    try:
        return bento_store.store()
    except RuntimeError as err:
        raise UserError(
            "this user has no home folder",
            got=f"HOME is not set, and user {os.getuid()} is not in the system's list",
            rule="built releases lie below it",
            fix="set HOME, or BENTOML_HOME, to a folder that can be written",
        ) from err


def _temporary() -> Writable:
    fix = "set TMPDIR to a folder that can be written"
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as err:
        named = Path(os.environ.get("TMPDIR", "/tmp"))
        return Writable("the temporary folder", named, fix, str(err.strerror or err))
    return Writable("the temporary folder", folder, fix, fault(folder))


def fault(folder: Path) -> str | None:
    """Say why `folder` cannot be written or made, or None; tried, since a mode says too little.

    A folder that is not there yet is judged by the nearest one above it that is.
    """
    near = folder.absolute()
    while not os.path.lexists(near) and near != near.parent:
        near = near.parent
    try:
        Path(tempfile.mkdtemp(prefix=".fettle-", dir=near)).rmdir()
    except OSError as err:
        return f"{err.strerror or err} ({near})"
    return None
