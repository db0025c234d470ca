"""A compressed model against the unpruned one: parameters, MACs, latency, and accuracy on test.

Recipes by hand: `benchmark_recipes.SMALL`. Latency is over the better fp32 runtime of the unpruned
model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import table
from benchmarks.compression import benchmark_recipes
from benchmarks.context import Context, Prepared
from benchmarks.table import Row
from fettle.evaluation import accuracy_statistics
from fettle.hardware import latency_measurement, onnx_cost
from fettle.hardware.runtimes import openvino, ort
from fettle.measure import Measure

WHAT = "parameters, MACs and p50 latency at batch 1, a small model's against the unpruned one's"
GOAL = ">= 10x fewer parameters and MACs and >= 8x less latency, at <= 1.0 point"

SIZE_X, LATENCY_X, DROP_MAX = 10.0, 8.0, 0.01


def run(context: Context) -> Iterator[Row]:
    """Measure each data set; of the fp32 files the faster runtime counts, for both models."""
    for name in context.data:
        yield from _of(context, context.prepare(name))


def _of(context: Context, one: Prepared) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        made = benchmark_recipes.make(one, benchmark_recipes.SMALL[one.name], Path(folder))
        test = one.images("test")
        logits = [benchmark_recipes.answers(onnx, one, test) for onnx in (one.onnx, made.onnx)]
        costs = [onnx_cost.cost(onnx, shape=one.shape) for onnx in (one.onnx, made.onnx)]
        single = one.batch(one.images("test", most=1))
        sessions = {
            f"{which} {runtime.__name__.rpartition('.')[2]}": runtime.open(
                onnx, threads=context.threads
            )
            for which, onnx in (("float", one.onnx), ("small", made.onnx))
            for runtime in (ort, openvino)
        }
        times = latency_measurement.interleave(
            {name: lambda s=session: s.run(single) for name, session in sessions.items()},
            rounds=context.rounds,
            seed=context.seed,
        )
    counted = [
        ("parameters", *(cost.parameters for cost in costs)),
        ("MACs", *(cost.macs for cost in costs)),
    ]
    best = {
        which: min((n for n in times if n.startswith(which)), key=lambda n: np.median(times[n]))
        for which in ("float", "small")
    }
    drop = accuracy_statistics.drop("accuracy", *logits, test.labels)
    inside = drop.value <= DROP_MAX
    gain = latency_measurement.speedup(
        times[best["float"]], times[best["small"]], seed=context.seed
    )
    steps = benchmark_recipes.spoken(benchmark_recipes.SMALL[one.name])
    title = f"{one.name}, {one.shape[1]} px"
    fewer = [
        table.of_measure(
            f"{title}: {what}, times fewer",
            Measure(value=before / after, unit="x", n=1),
            goal=f">= {SIZE_X:g} at <= 1 point",
            met=before / after >= SIZE_X and inside,
            note=f"{steps}; {after:,} of {before:,}",
        )
        for what, before, after in counted
    ]
    return [
        *fewer,
        table.of_measure(
            f"{title}: p50 latency, times less",
            gain,
            goal=f">= {LATENCY_X:g} at <= 1 point",
            met=gain.value >= LATENCY_X and inside,
            note=f"{steps}, fp32; {best['small']} against {best['float']}",
        ),
        table.of_measure(
            f"{title}: accuracy lost by that model", drop, goal="<= 0.01", met=inside, note=steps
        ),
    ]
