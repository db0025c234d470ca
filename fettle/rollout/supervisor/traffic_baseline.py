"""Traffic baseline: how the champion was asked and answered of late, for `fettle canary plan`.

Reads the end of the router's log; changes nothing. A log without the champion's requests, or none
at all, tells nothing, and the plan says what it assumes.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from fettle.rollout.promotion.request_records import failed
from fettle.rollout.promotion.sample_size import Traffic
from fettle.rollout.promotion.traffic_statistics import TrafficStatistics, estimate
from fettle.rollout.router import access_log, model_servers
from fettle.rollout.router.access_log import CLIENT_GONE, LoggedRequest
from fettle.rollout.supervisor.state_layout import PinnedRelease, StateLayout

RECENT_BYTES = 4 * 2**20  # about 12,000 requests, read and weighed in a second
RATE_LEAST = 30  # requests before their rate is one


def from_access_log(place: StateLayout, assumed: Traffic) -> TrafficStatistics:
    """Return what the log tells of the traffic, and of it what is only assumed."""
    bad: list[str] = []
    lines = recent_requests(place, bad)
    tries = [
        line.tries[0]
        for line in lines
        if line.status != CLIENT_GONE and line.tries and line.tries[0].arm == "champion"
    ]
    span_s = lines[-1].time_s - lines[0].time_s if lines else 0.0
    found = estimate(
        assumed,
        failed=np.array([failed(one.status) for one in tries], dtype=bool),
        latency_ms=np.array([one.latency_ms for one in tries], dtype=np.float64),
        per_s=len(lines) / span_s if len(lines) >= RATE_LEAST and span_s > 0 else None,
    )
    return replace(found, skipped=len(bad))


def recent_requests(place: StateLayout, bad: list[str]) -> list[LoggedRequest]:
    """Return the last lines of the router's log; the serving release's tries are "champion".

    What is wrong with a line that was left out is added to `bad`.
    """
    serving = serving_release(place)
    known = (
        None
        if serving is None
        else model_servers.ModelServers(place.arms, os.environ, key=None).known(serving)
    )
    if known is None:
        return []
    log = place.router / "attempts.log"
    since = access_log.recent(log, RECENT_BYTES)
    lines: list[LoggedRequest] = []
    while True:
        before = since
        more, since = access_log.read(log, since, {known.address: "champion"}, bad=bad)
        lines += more
        if since == before:
            return lines


def serving_release(place: StateLayout) -> str | None:
    """Name the release that serves: a promoted challenger has taken the champion's place."""
    serving = place.serving()
    if serving is None:
        return None
    now: PinnedRelease | None = serving.challenger if serving.promoted else serving.champion
    return None if now is None else now.release
