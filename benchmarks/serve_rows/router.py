"""Measure what the router adds to a request, and how truly it draws."""

from __future__ import annotations

import http.client
import statistics
from contextlib import closing
from pathlib import Path

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.serve import Context
from benchmarks.serving.canary_harness import CanaryHarness
from fettle.rollout.router import access_log, model_servers, nginx_process
from fettle.rollout.router.nginx_config import Routes

WHAT = "router: what it adds at 200 requests/s; split error; sticky keys"
GOAL = "p50 1 ms, p99 5 ms; 0.5 point at 100,000 requests; 100 % of the keys keep their arm"
PER_S = 200.0
ROUNDS = 5
SPLIT_PERCENT = 20.0
DRAWS_A_SECOND = 10_000  # of `--seconds`: 100,000 by default
USERS = 500


def run(context: Context) -> list[BenchmarkRow]:
    """Measure the three on one scratch folder."""
    with closing(CanaryHarness(context.root, context.release, context.scratch)) as harness:
        harness.open()
        added = overhead(harness, context.seconds)
    folder = context.scratch / "draws"
    folder.mkdir()
    return [*added, *draws(folder, int(context.seconds * DRAWS_A_SECOND))]


def overhead(harness: CanaryHarness, seconds: float) -> list[BenchmarkRow]:
    """Ask the champion by the router and directly, in turn; compare the quantiles."""
    serving = harness.place.serving()
    assert serving is not None
    assert serving.champion is not None
    server = harness.arms.find(serving.champion.release)
    assert server is not None
    gaps: dict[str, list[float]] = {"p50_ms": [], "p99_ms": []}
    for _ in range(ROUNDS):
        seen = []
        for port in (server.port, harness.port):
            harness.ask(PER_S, port=port, labels=False)
            harness.run_for(seconds)
            seen.append(harness.answered())
        for name, found in gaps.items():
            found.append(seen[1][name] - seen[0][name])
    rows = []
    for name, goal in (("p50_ms", 1.0), ("p99_ms", 5.0)):
        found = gaps[name]
        median = statistics.median(found)
        rows.append(
            benchmark_row.measured(
                f"router: added to the {name.removesuffix('_ms')} at {PER_S:g} requests/s",
                median, low=min(found), high=max(found), unit="ms", n=len(found), seeds=(),
                goal=f"<= {goal:g}", holds=median <= goal,
                note=f"rounds of {seconds:g} s, direct and by the router in turn",
            )
        )  # fmt: skip
    return rows


def draws(folder: Path, count: int) -> list[BenchmarkRow]:
    """Draw against nginx's own control port as both servers: only the draw is of interest."""
    port, control = model_servers.free_ports(2)
    router = nginx_process.Nginx(
        nginx_process.place(folder, host="127.0.0.1", port=port, control=control)
    )
    try:
        router.set_routes(Routes(control, control, weight_percent=SPLIT_PERCENT, salt="bench"))
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for _ in range(count):
            ask(link, {})
        share = drawn(router, count)
        moved = 0
        before: set[int] = set()
        for weight in (5.0, 20.0, 60.0):
            routes = Routes(control, control, weight_percent=weight, sticky="header:X-User")
            router.set_routes(routes)
            link.close()
            took = [arms_of(router, link), arms_of(router, link)]
            moved += len(took[0] ^ took[1]) + len(before - took[0])
            before = took[0]
        link.close()
    finally:
        router.stop()
    error = abs(100 * share - SPLIT_PERCENT)
    kept = 100 * (1 - moved / (3 * USERS))
    return [
        benchmark_row.measured(
            f"router: split error at {SPLIT_PERCENT:g} %",
            error, unit="points", n=count, seeds=(), goal="<= 0.5", holds=error <= 0.5,
        ),
        benchmark_row.measured(
            "router: keys that keep their arm, at a weight and while it grows (5, 20, 60 %)",
            kept, unit="%", n=3 * USERS, seeds=(), goal="100", holds=moved == 0,
        ),
    ]  # fmt: skip


def ask(link: http.client.HTTPConnection, headers: dict[str, str]) -> None:
    """Send one request; what it is answered does not matter."""
    link.request("POST", "/predict", b"x", headers)
    link.getresponse().read()


def drawn(router: nginx_process.Nginx, count: int) -> float:
    """Return the challenger's share of the first `count` requests of the log."""
    hits = position = seen = 0
    while seen < count:
        lines, position = access_log.read(router.place.log, position, {})
        seen += len(lines)
        hits += sum(line.drawn == "challenger" for line in lines)
    return hits / seen


def arms_of(router: nginx_process.Nginx, link: http.client.HTTPConnection) -> set[int]:
    """Return the users that are drawn for the challenger, asking for each once."""
    position = access_log.end_position(router.place.log)
    for user in range(USERS):
        ask(link, {"X-User": str(user)})
    found: dict[int, str] = {}
    while len(found) < USERS:
        lines, position = access_log.read(router.place.log, position, {})
        found |= {int(line.key): line.drawn for line in lines if line.key}
    return {user for user, arm in found.items() if arm == "challenger"}
