"""A compressed model against the unpruned one: parameters, MACs, latency, and accuracy on test.

Recipes by hand: `benchmark_recipes.SMALL`. Latency is over the better fp32 runtime of the unpruned
model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.compression import benchmark_recipes
from benchmarks.context import Context, Prepared
from fettle.evaluation import accuracy_statistics
from fettle.hardware import latency_measurement, onnx_cost
from fettle.hardware.latency_measurement import Times
from fettle.hardware.runtimes import Session, openvino, ort
from fettle.measure import Measure

WHAT = "parameters, MACs and p50 latency at batch 1, a small model's against the unpruned one's"
GOAL = ">= 10x fewer parameters and MACs and >= 8x less latency, at <= 1.0 point"

SIZE_X, LATENCY_X, DROP_MAX = 10.0, 8.0, 0.01


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure each data set; of the fp32 files the faster runtime counts, for both models."""
    for name in context.data:
        yield from _of(context, context.prepare(name))


def _of(context: Context, one: Prepared) -> list[BenchmarkRow]:
    with tempfile.TemporaryDirectory() as folder:
        made = benchmark_recipes.make(one, benchmark_recipes.SMALL[one.name], Path(folder))
        test = one.images("test")
        before, after = (
            benchmark_recipes.answers(onnx, one, test) for onnx in (one.onnx, made.onnx)
        )
        float_cost, small_cost = (
            onnx_cost.cost(onnx, shape=one.shape) for onnx in (one.onnx, made.onnx)
        )
        times = _times(context, one, made.onnx)
    drop = accuracy_statistics.drop("accuracy", before, after, test.labels)
    counted = [
        ("parameters", float_cost.parameters, small_cost.parameters),
        ("MACs", float_cost.macs, small_cost.macs),
    ]
    return [
        *(_fewer(one, *count, drop=drop) for count in counted),
        _faster(context, one, times, drop),
        benchmark_row.of_measure(
            f"{_title(one)}: accuracy lost by that model",
            drop,
            seeds=[one.params.seed],
            goal=f"<= {DROP_MAX:g}",
            holds=drop.value <= DROP_MAX,
            note=_steps(one),
        ),
    ]


def _times(context: Context, one: Prepared, small: Path) -> dict[str, Times]:
    """Time both models in each fp32 runtime, in the same rounds: {"float ort": ms, …}."""
    single = one.batch(one.images("test", most=1))
    sessions: dict[str, Session] = {}
    for which, onnx in (("float", one.onnx), ("small", small)):
        sessions[f"{which} ort"] = ort.open(onnx, threads=context.threads)
        sessions[f"{which} openvino"] = openvino.open(onnx, threads=context.threads)
    return latency_measurement.interleave(
        {name: partial(session.run, single) for name, session in sessions.items()},
        rounds=context.rounds,
        seed=context.seed,
    )


def _fewer(one: Prepared, what: str, before: int, after: int, *, drop: Measure) -> BenchmarkRow:
    return benchmark_row.measured(
        f"{_title(one)}: {what}, times fewer",
        before / after,
        unit="x",
        n=1,
        seeds=[one.params.seed],
        goal=f">= {SIZE_X:g} at <= 1 point",
        holds=before / after >= SIZE_X and drop.value <= DROP_MAX,
        note=f"{_steps(one)}; {after:,} of {before:,}",
    )


def _faster(
    context: Context, one: Prepared, times: Mapping[str, Times], drop: Measure
) -> BenchmarkRow:
    """Compare each model in the runtime that is faster for it."""
    slow, fast = (
        min((name for name in times if name.startswith(which)), key=lambda n: np.median(times[n]))
        for which in ("float", "small")
    )
    gain = latency_measurement.speedup(times[slow], times[fast], seed=context.seed)
    return benchmark_row.of_measure(
        f"{_title(one)}: p50 latency, times less",
        gain,
        seeds=[one.params.seed, context.seed],
        goal=f">= {LATENCY_X:g} at <= 1 point",
        holds=gain.value >= LATENCY_X and drop.value <= DROP_MAX,
        note=f"{_steps(one)}, fp32; {fast} against {slow}",
    )


def _title(one: Prepared) -> str:
    return f"{one.name}, {one.shape[1]} px"


def _steps(one: Prepared) -> str:
    return benchmark_recipes.spoken(benchmark_recipes.SMALL[one.name])
