"""The latency predictor's error beside its claim: whole networks predicted, then measured."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.context import Context, Prepared
from fettle.hardware import machine_fingerprint, operator_cost_table
from fettle.measure import Measure
from fettle.params import load
from fettle.recorder import NullRecorder
from fettle.stage_contract import Inputs
from stages import latency_table as stage

WHAT = "predicted against measured latency of whole networks, per target"
GOAL = "largest error <= 0.15 on networks the table did not learn from"
LARGEST = 0.15
SECONDS_MAX = 15


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure each data set's table for every target that runs here."""
    for name in context.data:
        yield from _of(context.prepare(name))


def _of(one: Prepared) -> list[BenchmarkRow]:
    rows, here = [], json.loads(json.dumps(machine_fingerprint.fingerprint()))
    for target in one.params.targets:
        overrides = ["compress.recipe=auto", f"compress.objective.target={target}"]
        params = load(one.tree / "params.yaml", overrides)
        inputs = Inputs(one.inputs.folders, one.tree, one.inputs.scratch)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            stage.run(params, inputs, Path(folder), NullRecorder())
            seconds = time.perf_counter() - started
            tables = operator_cost_table.read(Path(folder) / operator_cost_table.NAME, here)
        what = f"{one.name}: latency predictor's largest error, {target}"
        costs = tables.get(target)
        if costs is None or costs.error is None:
            why = "no table" if costs is None else "the widths of this network cannot be changed"
            rows.append(benchmark_row.not_measured(what, "1", GOAL, why=why))
            continue
        rows.append(_error(what, costs, costs.error, seed=one.params.seed))
        rows.append(
            benchmark_row.of_times(
                f"{one.name}: time of the table, {target}", [seconds], SECONDS_MAX
            )
        )
    return rows


def _error(what: str, costs: operator_cost_table.Costs, error: float, *, seed: int) -> BenchmarkRow:
    said = ", ".join(
        f"{check.predicted_ms:.3f} for {check.measured_ms:.3f} ms" for check in costs.checks
    )
    measure = Measure(value=error, unit="1", n=len(costs.checks))
    return benchmark_row.of_measure(
        what,
        measure,
        seeds=[seed],
        goal=f"<= {LARGEST:g}",
        holds=error <= LARGEST,
        note=f"predicted {said}",
    )
