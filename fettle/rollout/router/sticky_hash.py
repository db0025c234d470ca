"""Keyed hash of the sticky key in the router's log: who is told from whom, not who it is.

nginx has no hash to print but `split_clients`, MurmurHash2 of a text as one of some shares. Five of
a hundred, each over another salt and a secret of this router, are ten digits: one pair in ten
thousand million is taken for one user. The secret's file is this user's alone and stays, so that a
user stays the same over a restart.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

GLOB = "sticky-hash-*.conf"
PARTS, SHARES = 5, 100


def text(secret: str) -> str:
    """Return the maps: `$logged_key` is the hash of `$sticky_key`, empty where that is."""
    lines = []
    for part in range(PARTS):
        lines.append(f'split_clients "{secret}{part}$sticky_key" $sticky_hash_{part} {{')
        lines += [f"    1% {share:02d};" for share in range(SHARES - 1)]
        lines += [f"    * {SHARES - 1};", "}"]
    whole = "".join(f"$sticky_hash_{part}" for part in range(PARTS))
    lines.append(f'map $sticky_key $logged_key {{ "" ""; default "{whole}"; }}')
    return "\n".join([*lines, ""])


def write(folder: Path) -> str:
    """Write the maps into the router's `folder` unless they are there; return the file's name."""
    for path in sorted(folder.glob(GLOB)):
        if path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size == len(text("0" * 32)):
            return path.name
        path.unlink()
    path = folder / GLOB.replace("*", secrets.token_hex(4))
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text(secrets.token_hex(16)))
    return path.name
