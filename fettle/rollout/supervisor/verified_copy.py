"""Verified copy of a Bento: each release is served from its own folder, whose bytes were verified.

    state/arms/RELEASE/bento    read-only, made of the Bento in the user's store, verified before
                                every start, and again when anything in it was touched

The store is everybody's: what becomes of it after a start changes nothing that runs. What becomes
of the copy is seen within a second, also before a worker that crashed reads it again a second time.
"""

from __future__ import annotations

import os
import shutil
import stat
from hashlib import sha256
from pathlib import Path

from fettle.adapters import bento_store
from fettle.errors import FettleError, TamperedError, TransientError
from fettle.release import signing
from fettle.rollout.supervisor.state_layout import PinnedRelease

FOLDER = "bento"
READ_ONLY = 0o444


def verify(release: PinnedRelease) -> None:
    """Refuse to run a release unless its folder, and the Bento in the store, are as signed.

    Raises TamperedError, or ProjectError when the Bento is gone.
    """
    signing.verify_release(Path(release.folder), bento_store.bento_folder(release.tag), os.environ)


class VerifiedCopies:
    """The copies below `arms`, the folder of the served releases."""

    def __init__(self, arms: Path) -> None:
        self._arms = arms
        self._prints: dict[str, str] = {}

    def prepare(self, release: PinnedRelease) -> Path:
        """Return the folder to serve a release from, its bytes verified just now.

        A copy that does not hold is made anew. Raises TamperedError where the release or its Bento
        is not what was signed, ProjectError when it is gone, TransientError on a full disk.
        """
        verify(release)
        own = self._arms / release.release / FOLDER
        if own.is_dir():
            try:
                self._verify(release, own)
                return own
            except FettleError:
                pass  # made anew below
        _copy(bento_store.bento_folder(release.tag), own)
        self._verify(release, own)
        return own

    def why_changed(self, release: PinnedRelease) -> str | None:
        """Say what is wrong with the copy that a release runs from; None where it is as verified.

        None too for a server that an earlier version started: it has no copy.
        """
        own, name = self._arms / release.release / FOLDER, release.release
        known = self._prints.get(name)
        if known == _fingerprint(own) or (known is None and not own.is_dir()):
            return None
        try:
            self._verify(release, own)
        except FettleError as err:
            self._prints.pop(name, None)
            return str(err)
        return None

    def _verify(self, release: PinnedRelease, own: Path) -> None:
        before = _fingerprint(own)  # taken first: what is touched meanwhile is verified again
        try:
            signing.verify(own, signing.of_bento(Path(release.folder)), os.environ)
        except TamperedError as err:
            raise TamperedError(
                f"the folder that {release.release} is served from was changed: {own}",
                got=err.got,
                rule="the bytes that run are those that were signed",
                fix="it is made anew when the release starts: `fettle canary resume`, where its "
                "rollout was paused",
            ) from err
        self._prints[release.release] = before


def _copy(bento: Path, own: Path) -> None:
    draft = own.with_name(f".{own.name}.new")
    for old in (draft, own):
        shutil.rmtree(old, ignore_errors=True)
    try:
        shutil.copytree(bento, draft)
        for path in draft.rglob("*"):
            if path.is_file():
                path.chmod(READ_ONLY)
        draft.rename(own)
    except OSError as err:
        shutil.rmtree(draft, ignore_errors=True)
        raise TransientError(
            f"the folder that the release is served from cannot be written: {own}",
            got=str(err)[:200],
            rule="each release is served from a copy of its own",
            fix="make room on that disk",
        ) from err


def _fingerprint(folder: Path) -> str:
    """Return what changes whenever a file below `folder` does; its ctime cannot be set back."""
    found = []
    for path in sorted([folder, *folder.rglob("*")]):
        try:
            seen = path.lstat()
        except OSError:
            continue
        kind = stat.S_IFMT(seen.st_mode)
        found.append(
            (str(path), kind, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
        )
    return sha256(repr(found).encode()).hexdigest()
