"""Requests a second against LitServe, MLServer and `mlflow models serve`, at equal p99.

The same ONNX, preprocessing, answer, image as JSON numbers (what all of them take), two workers of
one thread each; one server at a time is up (LitServe's workers poll, and take a third of a core
when idle), in turns. "At equal p99": of the rival's point of highest throughput, fettle's highest
throughput with no larger p99.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.serving import servers_under_load, wrk_load
from benchmarks.serving.servers_under_load import Server
from benchmarks.serving.wrk_load import Load

if TYPE_CHECKING:
    from benchmarks.serve import Context

WHAT = "requests/s against LitServe, MLServer and mlflow models serve, at equal p99"
GOAL = ">= 1.5 times each"
TIMES = 1.5
CONNECTIONS = (1, 4, 16, 64)
ROUNDS = 3

Points = dict[str, dict[int, list[Load]]]


def run(context: Context) -> list[BenchmarkRow]:
    """Sweep every server's connections, one server after another, `ROUNDS` times."""
    if not wrk_load.available():
        return [benchmark_row.not_measured(WHAT, "x", GOAL, why=wrk_load.MISSING)]
    points: Points = {}
    found: dict[str, tuple[str, float]] = {}
    for at in range(ROUNDS):
        for serve in (
            servers_under_load.fettle,
            servers_under_load.litserve,
            servers_under_load.mlserver,
            servers_under_load.mlflow,
        ):
            scratch = context.scratch / f"{serve.__name__}-{at}"
            scratch.mkdir()
            with serve(context.release, scratch) as one:
                found[one.name] = best(servers_under_load.answers(one.json) or b"")
                sweep(one, points.setdefault(one.name, {}), context.seconds, scratch)
    same_answers(found)
    ours = points.pop("fettle")
    return [compare(ours, name, theirs) for name, theirs in points.items()]


def sweep(one: Server, points: dict[int, list[Load]], seconds: float, scratch: Path) -> None:
    """Load a server, once warm, over each number of connections."""
    wrk_load.measure(one.json, connections=8, seconds=2, scratch=scratch)
    for connections in CONNECTIONS:
        load = wrk_load.measure(one.json, connections=connections, seconds=seconds, scratch=scratch)
        points.setdefault(connections, []).append(load)


def same_answers(found: dict[str, tuple[str, float]]) -> None:
    """Stop unless every server names the same class with the same probability."""
    label, probability = found["fettle"]
    for name, (other, near) in found.items():
        if other != label or abs(near - probability) > 1e-5:
            raise RuntimeError(f"{name} answers otherwise: {found}")


def best(body: bytes) -> tuple[str, float]:
    """Find the label and its probability in any of the four protocols."""
    doc: Any = json.loads(body)
    if isinstance(doc, dict) and "outputs" in doc:  # MLServer
        doc = json.loads(doc["outputs"][0]["data"][0])
    if isinstance(doc, dict):  # MLflow
        doc = doc["predictions"]
    return doc[0]["label"], doc[0]["probability"]


def compare(ours: dict[int, list[Load]], name: str, theirs: dict[int, list[Load]]) -> BenchmarkRow:
    """Make the row of one rival: the median over rounds, its spread, and the two points."""
    ratios = []
    for at in range(ROUNDS):
        peak = max((loads[at] for loads in theirs.values()), key=lambda one: one.per_second)
        within = [loads[at] for loads in ours.values() if loads[at].p99_ms <= peak.p99_ms]
        reached = max((one.per_second for one in within), default=0.0)
        ratios.append(reached / peak.per_second)
    ratio = statistics.median(ratios)
    return benchmark_row.measured(
        f"requests/s, times {name}'s at equal p99",
        ratio, low=min(ratios), high=max(ratios), unit="x", n=ROUNDS, seeds=(),
        goal=f">= {TIMES}", holds=ratio >= TIMES,
        note=f"fettle {peak_of(ours)}; {name} {peak_of(theirs)}",
    )  # fmt: skip


def peak_of(points: dict[int, list[Load]]) -> str:
    """Say the best point over all rounds."""
    peak = max(
        (load for loads in points.values() for load in loads), key=lambda one: one.per_second
    )
    failed = f", {peak.refused + peak.broken} failed" if peak.refused + peak.broken else ""
    return f"{peak.per_second:.0f}/s (p99 {peak.p99_ms:.1f} ms, {peak.connections} links{failed})"
