"""Bytes of the float model's file over the int8 file of the pruned one, and what it costs on test.

Recipes by hand: prune and distil as in the data sets' params, then int8 as stages/export.py makes
it. Trial on digits (0.25 of the channels): 13.48 MB to 308 kB, 43.8x.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import table
from benchmarks.compress_rows import _recipes, int8_alone
from benchmarks.compress_rows._recipes import Recipe
from benchmarks.context import Context, Prepared
from benchmarks.table import Row
from fettle.bench import quality
from fettle.compress import weight_int8
from fettle.measure import Measure

WHAT = "file size, int8 of the pruned model over the float model's ONNX"
GOAL = ">= 35x at <= 1.0 point"

GOAL_X, DROP_MAX = 35.0, 0.01
RECIPE: Recipe = (
    {"use": "prune", "keep_fraction": 0.25, "steps": 3, "importance": "l2", "recover_epochs": 4},
    {"use": "distil", "epochs": 16},
)


def run(context: Context) -> Iterator[Row]:
    """Measure each data set: int8, and int8 weights alone."""
    for name in context.data:
        yield from _of(context.prepare(name))


def _of(one: Prepared) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = _recipes.make(one, RECIPE, folder / "recipe")
        int8_alone.write_images(one, folder)
        int8_alone.tune(one, folder, folder / "int8.onnx", model=made.onnx)
        weight_int8.apply(made.onnx, folder / "w8.onnx")
        test = one.images("test")
        before = _recipes.answers(one.onnx, one, test)
        rows = []
        for label in ("int8", "w8"):
            path = folder / f"{label}.onnx"
            after = _recipes.answers(path, one, test)
            drop = quality.drop("accuracy", before, after, test.labels)
            ratio = one.onnx.stat().st_size / path.stat().st_size
            rows.append(
                table.of_measure(
                    f"{one.name}: file, float over pruned {label}",
                    Measure(value=ratio, unit="x", n=1),
                    goal=f">= {GOAL_X:g} at a drop <= {DROP_MAX:g}",
                    met=ratio >= GOAL_X and drop.value <= DROP_MAX,
                    note=f"{path.stat().st_size:,} bytes; accuracy drops by {drop.value:.4f} "
                    f"({drop.low:.4f} to {drop.high:.4f}, n = {drop.n})",
                )
            )
    return rows
