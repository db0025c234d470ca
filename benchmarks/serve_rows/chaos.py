"""Kill, promote, abort and roll back under a steady load, and count what the users see."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import psutil

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.serve import Context
from benchmarks.serving.canary_harness import CanaryHarness

WHAT = "chaos: failed user requests, and how soon a decision empties the challenger"
GOAL = "0 failed of 100,000; 1 s from a decision to the last challenger request, p99"
PER_S = 200.0
# `--seconds 10` is the frame's default and takes the whole measurement; less takes less.
REQUESTS_A_SECOND = 10_000


def run(context: Context) -> list[BenchmarkRow]:
    """Measure until so many requests were sent that the goal speaks of."""
    wanted = context.seconds * REQUESTS_A_SECOND
    with closing(CanaryHarness(context.root, context.release, context.scratch)) as harness:
        harness.open()
        harness.ask(PER_S)
        began, rounds, failing = time.monotonic(), 0, []
        for number in count(1):
            if (time.monotonic() - began) * PER_S >= wanted and number > 1:
                break
            killing(harness, number)
            failing.append(broken(harness, number))
            promoting(harness, number)
            rounds = number
        counts = harness.answered()
        gaps = list(emptied(harness))
        seen = user_errors_while_failing(harness, failing)
    note = f"{rounds} rounds; statuses {counts['statuses']}, broken links {counts['errors']}"
    worst = sorted(gaps)[min(len(gaps) - 1, int(0.99 * len(gaps)))]
    return [
        benchmark_row.measured(
            "chaos: failed user requests (promote, abort, kill -9 of canary, worker, controller, "
            "SIGTERM of the old release)",
            counts["failed"], unit="1", n=counts["sent"], seeds=(),
            goal="0", holds=counts["failed"] == 0, note=note,
        ),
        errors_row(seen, len(failing)),
        benchmark_row.measured(
            "chaos: decision to the last challenger request, p99",
            worst, low=min(gaps), high=max(gaps), unit="s", n=len(gaps), seeds=(),
            goal="<= 1", holds=worst <= 1, note="by the router's log and the journal's time",
        ),
    ]  # fmt: skip


def errors_row(seen: tuple[int, int], rollouts: int) -> BenchmarkRow:
    """Make the row of what users saw of a challenger that fails: errors, of its requests."""
    what = "chaos: user-visible errors while a canary fails every request"
    if not seen[1]:
        return benchmark_row.not_measured(what, "1", "0", why="the challenger got no request")
    note = f"n: challenger requests answered 500 and replayed, in {rollouts} rollouts"
    return benchmark_row.measured(
        what, seen[0], unit="1", n=seen[1], seeds=(), goal="0", holds=seen[0] == 0, note=note
    )


def killing(harness: CanaryHarness, number: int) -> None:
    """Kill the controller, a worker of the champion, and the challenger; abort."""
    harness.start(f"good-{number}a")
    first = harness.controller()
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    harness.wait(lambda: harness.controller() not in (None, first), "a new controller")
    harness.run_for(3)
    serving = harness.place.serving()
    assert serving is not None
    assert serving.champion is not None
    server = harness.arms.find(serving.champion.release)
    assert server is not None
    worker = psutil.Process(server.pid).children(recursive=True)[-1]
    worker.kill()
    harness.run_for(5)
    assert serving.challenger is not None
    harness.arms.kill(serving.challenger.release)
    harness.reach("rolled_back")
    harness.start(f"good-{number}b")
    harness.run_for(2)
    harness.order(verb="abort")
    harness.run_for(2)


def broken(harness: CanaryHarness, number: int) -> str:
    """Let a challenger fail every request; return its rollout."""
    rollout = harness.start(f"failing-{number}")
    serving = harness.place.serving()
    assert serving is not None
    assert serving.challenger is not None
    (harness.place.arms / serving.challenger.release / "break").touch()
    harness.reach("rolled_back")
    harness.run_for(2)
    return rollout


def promoting(harness: CanaryHarness, number: int) -> None:
    """Promote, then end the old release by SIGTERM; the next round meets the promoted one."""
    harness.start(f"good-{number}c")
    serving = harness.place.serving()
    assert serving is not None
    assert serving.champion is not None
    harness.order(verb="promote")
    harness.reach("promoted")
    old = harness.arms.find(serving.champion.release)
    assert old is not None
    os.kill(old.pid, signal.SIGTERM)
    harness.run_for(5)


def lines(harness: CanaryHarness) -> Iterator[dict[str, object]]:
    """Read the router's log."""
    logs = [
        *sorted(harness.place.router.glob("attempts-*.log")),
        harness.place.router / "attempts.log",
    ]
    for log in logs:
        yield from (json.loads(line) for line in log.read_text().splitlines())


def emptied(harness: CanaryHarness) -> Iterator[float]:
    """Give the seconds from each rollback or abort to the last request drawn for its challenger."""
    drawn = [
        float(str(line["time"])) - float(str(line["seconds"]))
        for line in lines(harness)
        if line["arm"] == "challenger"
    ]
    ends = []
    for rollout in harness.place.rollouts():
        journal = (harness.place.rollout(rollout) / "journal.jsonl").read_text().splitlines()
        for line in journal[1:]:
            doc = json.loads(line)
            if doc["decision"]["state"]["phase"] in ("rolled_back", "aborted"):
                ends.append(float(doc["event"]["now_s"]))
                break
    for end in ends:
        # rollouts lie further apart than this
        yield max([0.0, *(at - end for at in drawn if end < at < end + 1.9)])


def user_errors_while_failing(harness: CanaryHarness, rollouts: list[str]) -> tuple[int, int]:
    """Count what users saw of the requests that a failing challenger got: errors, requests."""
    failed = [
        line for line in lines(harness) if str(line["statuses"]).startswith("500") and rollouts
    ]
    return sum(line["status"] != 200 for line in failed), len(failed)
