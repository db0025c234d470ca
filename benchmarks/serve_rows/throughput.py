"""Requests a second and p99 of the served release, by the number of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.serving import servers_under_load, wrk_load

if TYPE_CHECKING:
    from benchmarks.serve import Context

WHAT = "requests/s with one image as raw bytes, key, logs and metrics on"
GOAL = ">= 1500 requests/s, 0 refused at 64 connections"
AT_LEAST = 1500.0
CONNECTIONS = (1, 4, 8, 16, 32, 64)  # 64: what the server states to take at once
ROUNDS = 3


def run(context: Context) -> list[BenchmarkRow]:
    """Sweep the connections `ROUNDS` times; the best point and the highest are rows."""
    if not wrk_load.available():
        return [benchmark_row.not_measured(WHAT, "requests/s", GOAL, why=wrk_load.MISSING)]
    with servers_under_load.fettle(context.release, context.scratch) as server:
        assert server.raw is not None
        wrk_load.measure(server.raw, connections=8, seconds=2, scratch=context.scratch)  # warm
        found = {
            connections: [
                wrk_load.measure(
                    server.raw,
                    connections=connections,
                    seconds=context.seconds,
                    scratch=context.scratch,
                )
                for _ in range(ROUNDS)
            ]
            for connections in CONNECTIONS
        }
    rows = [point(loads) for loads in found.values()]
    refused = sum(load.refused + load.broken for loads in found.values() for load in loads)
    sent = sum(load.requests for loads in found.values() for load in loads)
    lost = benchmark_row.measured(
        "requests refused or broken",
        refused,
        unit="1",
        n=sent,
        seeds=(),
        goal="0",
        holds=not refused,
    )
    return [*rows, lost]


def point(loads: list[wrk_load.Load]) -> BenchmarkRow:
    """Make the row of one number of connections: the median round, its p99 as a note."""
    ranked = sorted(loads, key=lambda one: one.per_second)
    middle = ranked[len(ranked) // 2]
    goal = f">= {AT_LEAST:g}" if middle.connections >= 8 else ""
    return benchmark_row.measured(
        f"raw image, {middle.connections} connections",
        middle.per_second,
        low=ranked[0].per_second,
        high=ranked[-1].per_second,
        unit="requests/s",
        n=sum(load.requests for load in loads),
        seeds=(),
        goal=goal,
        holds=middle.per_second >= AT_LEAST,
        note=f"p50 {middle.p50_ms:.2f} ms, p99 {middle.p99_ms:.2f} ms",
    )
