"""Data drift's reference: bins of the training images' brightness, equally full by construction.

A live image falls into one of them (evidence_collector.py), and fettle/rollout/promotion/drift.py
asks whether a bin gets more than its share. Made once, when a rollout begins: begin.json holds it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fettle import manifest
from fettle.data import image_table
from fettle.preprocessing import Preprocess, brightness

BINS = 10
BIN_IMAGES = 2000  # deciles of brightness from so many training images: within 2 points each
SHARES = (1 / BINS,) * BINS


def brightness_edges(
    trees: Sequence[Path], release: Path, *, bins: int = BINS, images_max: int = BIN_IMAGES
) -> list[float]:
    """Return the inner edges of `bins` equally full bins of the training images' brightness.

    Empty when no tree has the release's data, or its images are too alike to be told apart.
    """
    tree = tree_of_release(trees, release)
    if tree is None:
        return []
    rows = image_table.read_split(tree / "artifacts/ingest", tree / "artifacts/validate", "train")
    preprocess = Preprocess(**json.loads((release / "preprocess.json").read_text()))
    step = max(1, len(rows.encoded) // images_max)
    values = sorted(brightness(preprocess.batch(rows.encoded[::step])))
    edges = [values[len(values) * index // bins] for index in range(1, bins)]
    return edges if len(set(edges)) == len(edges) else []


def tree_of_release(trees: Sequence[Path], release: Path) -> Path | None:
    """Return the first tree whose ingested data is the release's; None when none has it."""
    try:
        wanted = json.loads((release / "release.json").read_text())["data"]["ingest"]
    except (OSError, ValueError, KeyError, TypeError):  # its folder was deleted meanwhile
        return None
    for tree in trees:
        ingest, validate = (tree / "artifacts" / name for name in ("ingest", "validate"))
        sealed = all((folder / manifest.NAME).is_file() for folder in (ingest, validate))
        if sealed and manifest.read(ingest, verify=False).digest == wanted:
            return tree
    return None
