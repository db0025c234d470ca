"""Bytes of the float model's file over those of the small one's, and what it costs on test.

Recipes by hand (`benchmark_recipes.SMALL`), then int8, int8 weights and int4 weights as
stages/export.py makes them; the int4 file is held against the goal, the others are shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.compress_rows import int8_alone
from benchmarks.compression import benchmark_recipes
from benchmarks.context import Context, Prepared
from fettle.evaluation import accuracy_statistics
from fettle.measure import Measure
from fettle.quantize.quantizers import weight_int4, weight_int8

WHAT = "file size, the float model's ONNX over the small one's in int8 and int4 weights"
GOAL = ">= 35x at <= 1.0 point"

GOAL_X, DROP_MAX = 35.0, 0.01


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure each data set: int8, int8 weights alone, int4 weights alone."""
    for name in context.data:
        yield from _of(context.prepare(name))


def _of(one: Prepared) -> list[BenchmarkRow]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = benchmark_recipes.make(one, benchmark_recipes.SMALL[one.name], folder / "recipe")
        int8_alone.write_images(one, folder)
        int8_alone.tune(one, folder, folder / "int8.onnx", model=made.onnx)
        weight_int8.apply(made.onnx, folder / "w8.onnx")
        images, held_out = int8_alone.read_images(folder)
        stored = weight_int4.apply(
            made.onnx,
            folder / "w4.onnx",
            batches=images,
            held_out=held_out,
            disagreement_max=one.params.export.disagreement_max,
        )
        steps = benchmark_recipes.spoken(benchmark_recipes.SMALL[one.name])
        notes = {"int8": steps, "w8": steps, "w4": f"{steps}; {len(stored.kept_int8)} layers int8"}
        test = one.images("test")
        before = benchmark_recipes.answers(one.onnx, one, test)
        rows = []
        for label, note in notes.items():
            path = folder / f"{label}.onnx"
            after = benchmark_recipes.answers(path, one, test)
            drop = accuracy_statistics.drop("accuracy", before, after, test.labels)
            rows.append(_row(one, path, drop, note))
        return rows


def _row(one: Prepared, path: Path, drop: Measure, note: str) -> BenchmarkRow:
    ratio = one.onnx.stat().st_size / path.stat().st_size
    return benchmark_row.of_measure(
        f"{one.name}: file, float over small {path.stem}",
        Measure(value=ratio, unit="x", n=1),
        seeds=[one.params.seed],
        goal=f">= {GOAL_X:g} at a drop <= {DROP_MAX:g}" if path.stem == "w4" else "",
        holds=ratio >= GOAL_X and drop.value <= DROP_MAX,
        note=f"{path.stat().st_size:,} bytes; accuracy drops by {drop.value:.4f} "
        f"({drop.low:.4f} to {drop.high:.4f}, n = {drop.n}); {note}",
    )
