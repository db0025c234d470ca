"""Traffic baseline: how the champion was asked and answered of late.

For `fettle canary plan`, and as the history that a rollout pins (champion_history.py). Reads the
end of the router's log; changes nothing. A log without the champion's requests, or none
at all, tells nothing, and the plan says what it assumes.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from fettle.rollout.promotion import champion_history
from fettle.rollout.promotion.champion_history import ChampionHistory
from fettle.rollout.promotion.request_records import CLIENT_GONE, failed, judged_ms, refused
from fettle.rollout.promotion.sample_size import Traffic
from fettle.rollout.promotion.traffic_statistics import TrafficStatistics, estimate
from fettle.rollout.router import access_log, model_servers
from fettle.rollout.router.access_log import LoggedRequest
from fettle.rollout.supervisor.state_layout import PinnedRelease, StateLayout

RECENT_BYTES = 4 * 2**20  # about 12,000 requests, read and weighed in a second
# About 60,000: bursts of one arm that the fast path has never seen roll back equal challengers, and
# with 24,000 (`make sim-canary`, bursts of 200) some of them had never been seen.
HISTORY_BYTES = 16 * 2**20
RATE_LEAST = 30  # requests before their rate is one


def from_access_log(place: StateLayout, assumed: Traffic) -> TrafficStatistics:
    """Return what the log tells of the traffic, and of it what is only assumed."""
    bad: list[str] = []
    lines = recent_requests(place, bad)
    answered = [
        line
        for line in lines
        if line.status != CLIENT_GONE and line.tries and line.tries[0].arm == "champion"
    ]
    keys = {line.key for line in answered if line.key}
    span_s = lines[-1].time_s - lines[0].time_s if lines else 0.0
    found = estimate(
        assumed,
        failed=np.array([failed(line.tries[0].status) for line in answered], dtype=bool),
        latency_ms=np.array([_judged_ms(line) for line in answered], dtype=np.float64),
        per_s=len(lines) / span_s if len(lines) >= RATE_LEAST and span_s > 0 else None,
    )
    users = len(keys) if keys else None
    return replace(found, traffic=replace(found.traffic, users=users), skipped=len(bad))


def history(place: StateLayout) -> ChampionHistory | None:
    """Return what the log tells of the champion for a rollout; None where that is too little."""
    lines = [
        line
        for line in recent_requests(place, [], HISTORY_BYTES)
        if line.tries and line.tries[0].arm == "champion"
    ]
    statuses = [line.tries[0].status for line in lines]
    gone = np.array([line.status == CLIENT_GONE for line in lines], dtype=bool)
    lost = np.array([failed(status) for status in statuses], dtype=bool) & ~gone
    ms = np.array([_judged_ms(line) for line in lines], dtype=np.float64)
    return champion_history.learn(
        failed=lost,
        refused=gone | np.array([refused(status) for status in statuses], dtype=bool),
        log_ms=np.log(np.maximum(ms, 1e-3)),
    )


def _judged_ms(line: LoggedRequest) -> float:
    own_ms = line.own_ms if len(line.tries) == 1 else None
    return judged_ms(line.tries[0].latency_ms, own_ms)


def recent_requests(
    place: StateLayout, bad: list[str], most_bytes: int | None = None
) -> list[LoggedRequest]:
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
    since = access_log.recent(log, RECENT_BYTES if most_bytes is None else most_bytes)
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
