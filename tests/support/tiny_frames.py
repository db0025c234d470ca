"""Build tables of images as ingest leaves them, without the images."""

from __future__ import annotations

import hashlib
from typing import Any

import pandas as pd

from fettle.data.checks import CheckLimits
from fettle.data.image_table import SCHEMA

COLUMNS = [name for name in SCHEMA.names if name != "bytes"]
LIMITS = CheckLimits(
    labels=None,
    class_images_min=3,
    class_imbalance_max=2.0,
    size_px_min=8,
    size_px_max=64,
    null_max_fraction=0.0,
)
SPLITS_IN_TURN = ("train", "train", "validation", "test")


def good(row: str, label: str | None, split: str, **changed: Any) -> dict[str, Any]:
    """One healthy image; `changed` replaces some of its columns."""
    return {
        "row": row,
        "label": label,
        "group": None,
        "split": split,
        "sha256": hashlib.sha256(row.encode()).hexdigest(),
        "format": "JPEG",
        "mode": "RGB",
        "width": 32,
        "height": 24,
        "low": 0.1,
        "high": 0.9,
        "error": None,
    } | changed


def healthy(count: int = 8, classes: tuple[str, ...] = ("cat", "dog")) -> list[dict[str, Any]]:
    """`count` images a class, over all splits."""
    return [
        good(f"{label}/{at:02d}", label, SPLITS_IN_TURN[at % 4])
        for label in classes
        for at in range(count)
    ]


def unreadable(row: str, label: str, error: str) -> dict[str, Any]:
    empty = dict.fromkeys(("format", "mode", "width", "height", "low", "high"))
    return good(row, label, "train", **empty, error=error)


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"width": "float64", "height": "float64"})
