"""Chart data of the compression's pictures: weights, answers, profiles, trials.

Only the page and the tracker's figures ask for it: the weights of a large model take a moment.
What a stage did not leave is None, and its picture is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fettle.facts.compress_facts import SensitivityDocument
from fettle.report.report_values import Facts

WEIGHTS = "model.safetensors"
LAYERS_MAX = 24  # histograms shown: the layers with most parameters
BINS = 40
CONFIDENCE_BINS = 10
Doubles = npt.NDArray[np.float64]
Weights = Mapping[str, npt.NDArray[np.float32]]  # by parameter; narrower floats are widened


@dataclass(frozen=True, slots=True)
class Histogram:
    """One layer's weights: shares of the bins between -edge and edge, before and after.

    `after` is None when the layer is gone.
    """

    layer: str
    edge: float
    before: tuple[float, ...]
    after: tuple[float, ...] | None
    counts: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence: their mean confidence, the share that is right, how many."""

    confidence: float
    right: float
    images: int


def sensitivity(facts: Facts) -> SensitivityDocument | None:
    """Read sensitivity.json: what the loss says to each block and group."""
    path = facts.project / "artifacts" / "compress" / "sensitivity.json"
    return SensitivityDocument.read(path) if path.is_file() else None


def histograms(facts: Facts) -> list[Histogram]:
    """Count the weights of the largest layers, in the order of the network."""
    files = [facts.project / "artifacts" / s / WEIGHTS for s in ("finetune", "compress")]
    rows = facts.details.layers.root if facts.details.layers else ()
    if not rows or not all(file.is_file() for file in files):
        return []
    from safetensors.numpy import load_file

    before, after = (load_file(file) for file in files)
    named = [row.layer for row in rows if row.macs_before]
    named = [name for name in named if f"{name}.weight" in before]
    largest = sorted(named, key=lambda name: (-before[f"{name}.weight"].size, name))[:LAYERS_MAX]
    return [_histogram(name, before, after) for name in named if name in set(largest)]


def _histogram(name: str, before: Weights, after: Weights) -> Histogram:
    old = np.asarray(before[f"{name}.weight"], dtype=np.float64).ravel()
    found = after.get(f"{name}.weight")
    new = None if found is None else np.asarray(found, dtype=np.float64).ravel()
    both = old if new is None else np.concatenate([old, new])
    edge = float(np.quantile(np.abs(both), 0.995)) or 1.0  # a lone outlier would flatten the rest
    return Histogram(
        name,
        edge,
        _shares(old, edge),
        None if new is None else _shares(new, edge),
        (old.size, 0 if new is None else new.size),
    )


def _shares(values: Doubles, edge: float) -> tuple[float, ...]:
    counts, _ = np.histogram(values.clip(-edge, edge), bins=BINS, range=(-edge, edge))
    return tuple(float(share) for share in counts / max(values.size, 1))


def reliability(facts: Facts) -> dict[str, list[Bin]]:
    """Bin the test answers of both models by their confidence; empty without the answers."""
    path = facts.project / "artifacts" / "verdict" / "predictions.parquet"
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    found = {}
    for name, prefix in (("float", "float_"), ("shipped", "")):
        if f"{prefix}probability" not in table.column_names:
            continue
        confidence = table[f"{prefix}probability"].to_numpy()
        right = pc.equal(table[f"{prefix}predicted"], table["label"]).to_numpy(zero_copy_only=False)
        found[name] = _bins(confidence, right)
    return found


def _bins(confidence: Doubles, right: npt.NDArray[np.bool_]) -> list[Bin]:
    at = np.clip((confidence * CONFIDENCE_BINS).astype(int), 0, CONFIDENCE_BINS - 1)
    return [
        Bin(float(confidence[at == k].mean()), float(right[at == k].mean()), int((at == k).sum()))
        for k in range(CONFIDENCE_BINS)
        if (at == k).any()
    ]


def flips(facts: Facts) -> dict[str, int] | None:
    """Count the test answers that changed: lost, won, and wrong both times; None without them."""
    path = facts.project / "artifacts" / "verdict" / "predictions.parquet"
    if not path.is_file():
        return None
    table = pq.read_table(path, columns=["label", "predicted", "float_predicted"])
    was = pc.equal(table["float_predicted"], table["label"]).to_numpy(zero_copy_only=False)
    now = pc.equal(table["predicted"], table["label"]).to_numpy(zero_copy_only=False)
    same = pc.equal(table["predicted"], table["float_predicted"]).to_numpy(zero_copy_only=False)
    return {
        "images": len(table),
        "lost": int((was & ~now).sum()),
        "won": int((~was & now).sum()),
        "swapped": int((~was & ~now & ~same).sum()),
    }
