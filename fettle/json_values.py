"""JSON values: the types of what is read from a JSON file before anything is known of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"


def read_object(path: Path) -> JsonObject | None:
    """Read a JSON object that others, a full disk or a power cut may have damaged; None then."""
    try:
        doc = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return doc if isinstance(doc, dict) else None
