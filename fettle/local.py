"""Resolve what lies outside the tree: inputs/local.yaml holds the paths of this machine, untracked.

Apart from fettle/project.py so that ingest can ask without depending on the rest of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fettle import manifest


def local_settings(tree: Path) -> Mapping[str, str]:
    """Read inputs/local.yaml: the paths of this machine, e.g. {data: /data/photos}."""
    path = tree / "inputs" / "local.yaml"
    if not path.is_file():
        return {}
    from ruamel.yaml import YAML

    settings = YAML(typ="safe", pure=True).load(path.read_text()) or {}
    return {str(key): str(value) for key, value in settings.items()}


def set_local(tree: Path, key: str, path: Path) -> None:
    """Remember a path of this machine in inputs/local.yaml."""
    settings = {**local_settings(tree), key: str(path.resolve())}
    text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in sorted(settings.items()))
    manifest.write_text(tree / "inputs" / "local.yaml", text)


def location(tree: Path, options: Any) -> Path | None:  # Any: the source's own Params
    """Resolve where the data lies: inputs/local.yaml first, then the source's `path` option."""
    given = local_settings(tree).get("data") or getattr(options, "path", None)
    if given is None:
        return None
    return (Path(os.environ.get("FETTLE_ROOT", tree)) / Path(given).expanduser()).resolve()
