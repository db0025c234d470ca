"""Digest many files, hashing again only those whose stat changed since the last time.

A file is taken as unchanged when size, mtime and ctime are. One that changed in the last seconds
is never remembered: a second edit within the clock's tick would leave the same stat (git calls
such an entry racy).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from fettle import manifest

RACY_NS = 2_000_000_000  # FAT, the coarsest file system in use, ticks every 2 s
UNREADABLE = "unreadable"

Entry = list[int | str]  # size, mtime_ns, ctime_ns, sha256


def digests(paths: Sequence[Path], *, cache: Path, now_ns: int) -> list[str]:
    """Return the sha256 (hex) of each file, "unreadable" where it cannot be read.

    `cache` is a JSON file that may be absent, broken or in a folder that cannot be written: then
    every file is hashed. `now_ns` is the clock's time in nanoseconds.
    """
    known = _read(cache)
    fresh: dict[str, Entry] = {}
    found: list[str] = []
    for path in paths:
        try:
            stat = path.stat()
            if not S_ISREG(stat.st_mode):  # reading a pipe or a device would never end
                found.append(UNREADABLE)
                continue
            key: Entry = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            before = known.get(str(path), [])
            sha256 = str(before[3]) if before[:3] == key else manifest.sha256_file(path)
        except OSError:
            found.append(UNREADABLE)
            continue
        found.append(sha256)
        if max(stat.st_mtime_ns, stat.st_ctime_ns) < now_ns - RACY_NS:
            fresh[str(path)] = [*key, sha256]
    if fresh != known:
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            manifest.write_text(cache, json.dumps(fresh, sort_keys=True))
    return found


def _read(cache: Path) -> dict[str, Entry]:
    try:
        doc = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(doc, dict):
        return {}
    return {key: entry for key, entry in doc.items() if isinstance(entry, list) and len(entry) == 4}
