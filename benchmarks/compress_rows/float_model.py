"""The float model that all other rows start from: accuracy, size, and its best fp32 runtime."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.context import Context, Prepared
from fettle.evaluation import accuracy_statistics
from fettle.hardware import latency_measurement, onnx_cost
from fettle.hardware.runtimes import openvino, ort
from fettle.measure import Measure

WHAT = "the float model, before any compression"
GOAL = "none: the base of the others"


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure each data set's float model on its test images and in both fp32 runtimes."""
    for name in context.data:
        yield from _of(context, context.prepare(name))


def _of(context: Context, one: Prepared) -> list[BenchmarkRow]:
    test = one.images("test")
    sessions = {"ort": ort.open(one.onnx, threads=context.threads)}
    sessions["openvino"] = openvino.open(one.onnx, threads=context.threads)
    batch = one.batch(test)
    logits = np.concatenate(
        [sessions["ort"].run(batch[at : at + 64]) for at in range(0, len(batch), 64)]
    )
    cost = onnx_cost.cost(one.onnx, shape=one.shape)
    single = batch[:1]
    times = latency_measurement.interleave(
        {name: lambda s=session: s.run(single) for name, session in sessions.items()},
        rounds=context.rounds,
        seed=context.seed,
    )
    counted = {
        "parameters": Measure(value=cost.parameters, unit="parameters", n=1),
        "multiply-accumulates": Measure(value=cost.macs, unit="macs", n=1),
        "file": Measure(value=one.onnx.stat().st_size, unit="bytes", n=1),
        "accuracy on test": accuracy_statistics.accuracy(logits, test.labels),
        **{
            f"p50 in {name}, fp32": latency_measurement.quantile(ms, 0.5)
            for name, ms in times.items()
        },
    }
    return [
        benchmark_row.of_measure(
            f"{one.name}: float model, {what}", value, seeds=[one.params.seed, context.seed]
        )
        for what, value in counted.items()
    ]
