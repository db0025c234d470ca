"""Supervisor metrics for Prometheus: router, arms, rollout, evidence, lease, restarts.

What stands in files is read when it is asked for; requests are counted from the router's log, from
where the last scrape stopped, so that nothing is counted for nobody. Labels are bounded: arms,
phases, gates, verdicts, statuses.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fettle.json_values import read_object
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.rollout_state import BROKEN, Phase
from fettle.rollout.router import access_log, challenger_access, model_servers, nginx_process
from fettle.rollout.supervisor.state_layout import ServingState, StateLayout
from fettle.rollout.supervisor.status_document import GateRow

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BEHIND_MOST_BYTES = 32 * 2**20  # what lies further back is not counted: nobody scraped so long
IDLE = "idle"
PHASES = (IDLE, BROKEN, *(phase.value for phase in Phase))


class SupervisorMetrics(Collector):
    """The metrics of one project; `restarts` counts what the controller started again."""

    def __init__(self, place: StateLayout, serving: ServingState, restarts: Counter[str]) -> None:
        self._place, self._serving, self._restarts = place, serving, restarts
        self._log = place.router / "attempts.log"
        self._at = access_log.end_position(self._log)
        self._requests: Counter[tuple[str, str]] = Counter()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._seconds: dict[str, list[int]] = {}
        self._sums: Counter[str] = Counter()  # microseconds
        self._skipped = 0
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return all in Prometheus' text format."""
        with self._lock:
            return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Make every family, as Prometheus' client asks for them."""
        serving = self._serving_now()
        self._count(serving)
        yield from self._of_requests()
        yield from self._of_servers(serving)
        yield from self._of_rollout(serving)
        yield _gauge(
            "fettle_lease_seconds", "How long the controller may be silent.", serving.lease_s
        )
        age = self._place.lease_age_s()
        yield _gauge("fettle_lease_age_seconds", "Since the controller judged last.", age)
        problems = GaugeMetricFamily(
            "fettle_problem", "1 for what the controller cannot do now.", labels=("subject",)
        )
        for subject in sorted({name.partition(" ")[0] for name in self._place.problems()}):
            problems.add_metric([subject], 1)
        yield problems

    def _serving_now(self) -> ServingState:
        try:
            return self._place.serving() or self._serving
        except Exception:  # damaged: the controller writes it anew
            return self._serving

    def _count(self, serving: ServingState) -> None:
        """Count what the router logged since the last look."""
        arms = _addresses(self._place, serving)
        end = access_log.end_position(self._log)
        self._at = max(self._at, end - BEHIND_MOST_BYTES)
        while True:
            bad: list[str] = []
            found, position = access_log.read(self._log, self._at, arms, bad=bad)
            self._skipped += len(bad)
            for line in found:
                self._take(line)
            if position == self._at:
                return
            self._at = position

    def _take(self, line: access_log.LoggedRequest) -> None:
        self._requests[line.drawn, str(line.status)] += 1
        seconds = sum(one.latency_ms for one in line.tries) / 1000
        counts = self._seconds.setdefault(line.drawn, [0] * (len(SECONDS) + 1))
        counts[next((i for i, most in enumerate(SECONDS) if seconds <= most), len(SECONDS))] += 1
        self._sums[line.drawn] += round(seconds * 1e6)
        for one in line.tries:
            self._attempts[one.arm or "unknown", str(one.status)] += 1

    def _of_requests(self) -> Iterator[Metric]:
        for name, what, counts in (
            (
                "requests",
                "Requests by the arm drawn and the status that the user got.",
                self._requests,
            ),
            ("attempts", "Tries by the arm that was asked and its own status.", self._attempts),
        ):
            family = CounterMetricFamily(f"fettle_router_{name}", what, labels=("arm", "code"))
            for (arm, code), count in sorted(counts.items()):
                family.add_metric([arm, code], count)
            yield family
        seconds = HistogramMetricFamily(
            "fettle_router_request_seconds", "From the first try to the answer.", labels=("arm",)
        )
        for arm, found in sorted(self._seconds.items()):
            buckets, total = list[tuple[str, float]](), 0
            for most, count in zip((*map(str, SECONDS), "+Inf"), found, strict=True):
                total += count
                buckets.append((most, total))
            seconds.add_metric([arm], buckets, sum_value=self._sums[arm] / 1e6)
        yield seconds
        skipped = CounterMetricFamily(
            "fettle_router_log_lines_skipped", "Lines of the router's log that cannot be read."
        )
        skipped.add_metric([], self._skipped)
        yield skipped

    def _of_servers(self, serving: ServingState) -> Iterator[Metric]:
        alive = nginx_process.running(self._place.router) is not None
        yield _gauge("fettle_router_up", "Whether the router runs.", alive)
        servers = model_servers.ModelServers(self._place.arms, {}, key=None)
        up = GaugeMetricFamily(
            "fettle_arm_up", "Whether a release's server runs.", labels=("arm", "release")
        )
        for arm in ("champion", "challenger"):
            if (release := getattr(serving, arm)) is not None:
                up.add_metric([arm, release.release], servers.find(release.release) is not None)
        yield up
        restarts = CounterMetricFamily(
            "fettle_restarts", "What the controller started again.", labels=("what",)
        )
        for what in ("champion", "challenger", "router", "watchdog"):
            restarts.add_metric([what], self._restarts[what])
        yield restarts

    def _of_rollout(self, serving: ServingState) -> Iterator[Metric]:
        doc: Mapping[str, object] = {}
        if serving.rollout is not None:
            doc = read_object(self._place.rollout(serving.rollout) / "status.json") or {}
        now = str(doc.get("state", IDLE))
        phase = GaugeMetricFamily(
            "fettle_rollout_phase", "1 for where the rollout stands.", labels=("phase",)
        )
        for one in PHASES:
            phase.add_metric([one], one == now)
        yield phase
        info = GaugeMetricFamily(
            "fettle_rollout_info",
            "1 for the rollout.",
            labels=("rollout", "champion", "challenger"),
        )
        if serving.rollout is not None:
            names = [one.release if one else "" for one in (serving.champion, serving.challenger)]
            info.add_metric([serving.rollout, *names], 1)
        yield info
        decided = _number(doc.get("weight_percent"))
        open_ = challenger_access.is_open(self._place.router, now_s=time.time())
        met = decided if open_ or serving.champion is None else 0.0
        yield _gauge("fettle_rollout_weight_percent", "Of the requests, to the challenger.", met)
        yield _gauge("fettle_rollout_decided_weight_percent", "What was decided.", decided)
        judged = _number(doc.get("requests"))
        yield _gauge("fettle_rollout_requests", "Judged since this phase or step began.", judged)
        gates = doc.get("gates")
        yield from _of_gates(cast("list[GateRow]", gates) if isinstance(gates, list) else [])


def _of_gates(gates: list[GateRow]) -> Iterator[Metric]:
    counted = {
        "n": GaugeMetricFamily(
            "fettle_gate_requests", "What a gate counted.", labels=("gate", "arm")
        ),
        "events": GaugeMetricFamily(
            "fettle_gate_events", "Failures, slow or wrong ones among them.", labels=("gate", "arm")
        ),
    }
    values = {
        "evidence": GaugeMetricFamily(
            "fettle_gate_evidence", "An e-value, or a bound.", labels=("gate",)
        ),
        "threshold": GaugeMetricFamily(
            "fettle_gate_threshold", "What the evidence must reach.", labels=("gate",)
        ),
    }
    verdicts = GaugeMetricFamily(
        "fettle_gate_verdict", "1 for what a gate says.", labels=("gate", "verdict")
    )
    for gate in gates:
        for arm in ("champion", "challenger"):
            tally = cast("Mapping[str, float] | None", gate.get(arm))
            for name, family in counted.items() if tally else ():
                family.add_metric([gate["name"], arm], _number((tally or {}).get(name)))
        for name, family in values.items():
            if (value := gate.get(name)) is not None:
                family.add_metric([gate["name"]], _number(value))
        for verdict in Verdict:
            verdicts.add_metric([gate["name"], verdict.value], gate["verdict"] == verdict.value)
    yield from (*counted.values(), *values.values(), verdicts)


def _addresses(place: StateLayout, serving: ServingState) -> dict[str, access_log.Arm]:
    servers = model_servers.ModelServers(place.arms, {}, key=None)
    found: dict[str, access_log.Arm] = {}
    for arm, release in (("champion", serving.champion), ("challenger", serving.challenger)):
        known = servers.known(release.release) if release is not None else None
        if known is not None:
            found[known.address] = "champion" if arm == "champion" else "challenger"
    return found


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
