"""Judged traffic: was every request of a challenger judged within the lease? By log and journals.

A challenger request at t is unjudged when the last decision that anybody journalled before t is
older than the lease: nobody looked at what the challenger did to its users any more. The seconds
from then to the last such request are blind.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fettle.rollout.router import access_log
from fettle.rollout.supervisor.state_layout import StateLayout

SLACK_S = 1.0  # a kill switch is looked for when a request comes, its line written when it is over


@dataclass(frozen=True, slots=True)
class JudgedTraffic:
    """Requests that the challenger was drawn for, those that nobody judged, the seconds of them."""

    challenger: int
    unjudged: int
    blind_s: float


def count(place: StateLayout, lease_s: float) -> JudgedTraffic:
    """Count over all rollouts in a folder."""
    decided = sorted(
        at for name in place.rollouts() for at in decisions(place.rollout(name) / "journal.jsonl")
    )
    times = sorted(begun(place.router / "attempts.log"))
    unjudged, spans = 0, dict[float, float]()
    for at in times:
        index = bisect_right(decided, at) - 1
        last = decided[index] if index >= 0 else at
        late_s = at - last - lease_s - SLACK_S
        if late_s > 0:
            unjudged += 1
            spans[last] = max(spans.get(last, 0.0), late_s)
    return JudgedTraffic(len(times), unjudged, sum(spans.values()))


def decisions(journal: Path) -> Iterator[float]:
    """List when something was decided; lines that a fault damaged are left out."""
    for line in journal.read_bytes().split(b"\n") if journal.is_file() else []:
        try:
            yield float(json.loads(line)["event"]["now_s"])
        except (ValueError, KeyError, TypeError):
            continue


def begun(log: Path) -> Iterator[float]:
    """List when each request that the challenger was drawn for began."""
    for path in sorted(log.parent.glob(f"{log.stem}*{log.suffix}")):
        for line in path.read_bytes().split(b"\n"):
            try:
                found = access_log.parse(line, {})
                seconds = float(json.loads(line)["seconds"])
            except (ValueError, KeyError, TypeError):
                continue
            if found.drawn == "challenger" and found.weight_percent > 0:
                yield found.time_s - seconds
