"""Show a rollout that cannot be read: its journal is damaged, or another version's.

Nobody judges it, so its challenger meets no user; what served before it serves on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fettle import manifest
from fettle.promotion.rollout import BROKEN
from fettle.supervisor.place import Serving


def status(serving: Serving, why: str) -> dict[str, Any]:  # Any: JSON
    """Return what status.json says of it."""
    return {
        "rollout": serving.rollout,
        "state": BROKEN,
        "weight_percent": 0.0,
        "champion": serving.champion.release if serving.champion else None,
        "challenger": serving.challenger.release if serving.challenger else None,
        "reason": f"{why}; put it away: fettle canary abort",
        "requests": 0,
        "gates": [],
        "eta_s": None,
        "time_s": time.time(),
    }


def write_status(folder: Path, serving: Serving, why: str) -> None:
    """Write its status.json for who watches; a folder that is gone stays so."""
    if folder.is_dir():
        manifest.write_json(folder / "status.json", status(serving, why))
