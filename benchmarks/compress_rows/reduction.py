"""Latency of a compressed model against the best fp32 runtime of the unpruned one.

Recipes by hand, all students of the large network: docs/decisions/0033. On photos of 96 px the
layers at full resolution are what a student pays for: docs/decisions/0031.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import table
from benchmarks.compress_rows import _recipes
from benchmarks.compress_rows._recipes import Recipe
from benchmarks.context import Context, Prepared
from benchmarks.table import Row
from fettle.bench import latency, quality
from fettle.runtimes import openvino, ort

WHAT = "p50 latency, batch 1, over the best fp32 runtime of the unpruned model"
GOAL = ">= 8x at <= 1.0 point, at 32 px (digits) and at 96 px (photos)"

GOAL_X, DROP_MAX = 8.0, 0.01
RECIPES: dict[str, Recipe] = {
    "digits": (
        {"use": "student", "options": {"width": 8, "depth": 1, "blocks": 4}, "epochs": 150},
    ),
    "photos": (
        {
            "use": "student",
            "options": {"width": 8, "depth": 1, "blocks": 5, "stem_stride": 4},
            "epochs": 100,
        },
    ),
}


def run(context: Context) -> Iterator[Row]:
    """Measure both sizes of image; the fp32 file in both runtimes, the faster counts."""
    for name in [name for name in context.data if name in RECIPES]:
        yield from _of(context, context.prepare(name))


def _of(context: Context, one: Prepared) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        made = _recipes.make(one, RECIPES[one.name], Path(folder))
        test = one.images("test")
        logits = [_recipes.answers(onnx, one, test) for onnx in (one.onnx, made.onnx)]
        single = one.batch(one.images("test", most=1))
        sessions = {
            f"{which} {runtime.__name__.rpartition('.')[2]}": runtime.open(
                onnx, threads=context.threads
            )
            for which, onnx in (("float", one.onnx), ("small", made.onnx))
            for runtime in (ort, openvino)
        }
        times = latency.interleave(
            {name: lambda s=session: s.run(single) for name, session in sessions.items()},
            rounds=context.rounds,
            seed=context.seed,
        )
    best = {
        which: min((n for n in times if n.startswith(which)), key=lambda n: np.median(times[n]))
        for which in ("float", "small")
    }
    drop = quality.drop("accuracy", *logits, test.labels)
    gain = latency.speedup(times[best["float"]], times[best["small"]], seed=context.seed)
    steps = " > ".join(str(step["use"]) for step in RECIPES[one.name])
    note = f"{steps}, fp32; {best['small']} against {best['float']}"
    inside = drop.value <= DROP_MAX
    size = f"{one.name}, {one.shape[1]} px"
    return [
        table.of_measure(
            f"{size}: p50 latency, times less",
            gain,
            goal=f">= {GOAL_X:g} at <= 1 point",
            met=gain.value >= GOAL_X and inside,
            note=note,
        ),
        table.of_measure(
            f"{size}: accuracy lost by that model", drop, goal="<= 0.01", met=inside, note=note
        ),
    ]
