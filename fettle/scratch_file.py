"""Scratch file: an unlinked temporary file for what would otherwise grow in memory.

It has no name, so that nothing of it is left however the process ends. Reads are `pread`: what is
hot lies in the kernel's page cache, which is nobody's resident memory and is given back when memory
is short; a memory map's pages would count as the process's own.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from fettle.errors import TransientError

SPARE_BYTES = 256 * 2**20  # left to all else that a run writes: its artefacts are smaller


class ScratchFile:
    """Bytes appended one after the other and read back by their offset, from any thread.

    `what` names them in an error; `need_bytes`, where it is known, must be free in `folder`.
    """

    def __init__(self, folder: Path, *, what: str, need_bytes: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if need_bytes:
            refuse_small_disk(folder, what=what, need_bytes=need_bytes)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed below
        weakref.finalize(self, self._file.close)
        self._folder, self._what = folder, what
        self.size_bytes = 0

    def append(self, data: bytes | memoryview) -> int:
        """Write at the end and return the offset; raises TransientError on a full disk."""
        view, start = memoryview(data), self.size_bytes
        if not view.nbytes:  # which cannot be cast
            return start
        left = view.cast("B")
        try:
            while left:
                left = left[os.write(self._file.fileno(), left) :]
        except OSError as err:
            if err.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise TransientError(
                "the disk is full",
                got=f"{os.strerror(errno.ENOSPC)} in {self._folder}, after {in_words(start)} of "
                f"{self._what}",
                rule="they lie in a temporary file while the stage runs, which is gone now",
                fix="free some space (`fettle doctor` says how much is left) and run again",
            ) from err
        self.size_bytes += view.nbytes
        return start

    def read_into(self, target: memoryview, offset: int) -> None:
        """Fill `target` with the bytes from `offset` on."""
        left = target.cast("B") if target.nbytes else target
        while left:
            read = os.preadv(self._file.fileno(), [left], offset)
            if not read:
                raise EOFError(f"{self._what}: nothing at {offset}")
            left, offset = left[read:], offset + read

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on."""
        found = bytearray(length)
        self.read_into(memoryview(found), offset)
        return bytes(found)


def refuse_small_disk(folder: Path, *, what: str, need_bytes: int) -> None:
    """Refuse what cannot fit before any of it is made; raises TransientError: it may pass."""
    free = shutil.disk_usage(folder).free
    if need_bytes + SPARE_BYTES <= free:
        return
    raise TransientError(
        f"the disk is too small for {what}",
        got=f"{in_words(need_bytes)} to write, {in_words(free)} free in {folder}",
        rule=f"they lie in a temporary file while the stage runs, and {in_words(SPARE_BYTES)} stay "
        "free for the artefacts",
        fix="free some space (`fettle doctor` says how much is left), or move the project to a "
        "larger disk, and run again",
    )


def in_words(size_bytes: int) -> str:
    """Return a size as a person would say it: 350 kB, 1.2 GB."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.3g} {unit}"
    return f"{size_bytes} bytes"
