"""Name the folder where sources keep what can be made again: downloads and digests of files."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return fettle's own cache folder `name` of this user (XDG base directories); not made."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "fettle" / name
