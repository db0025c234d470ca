"""Status document of a rollout: the keys of status.json, for who shows it."""

from __future__ import annotations

from typing import TypedDict


class TallyRow(TypedDict):
    """What one arm counted: events among n requests."""

    n: int
    events: float


class GateRow(TypedDict):
    """One gate's verdict; an arm that it does not count is None."""

    name: str
    verdict: str
    reason: str
    champion: TallyRow | None
    challenger: TallyRow | None
    evidence: float | None
    threshold: float | None


class RolloutStatus(TypedDict, total=False):
    """Where a rollout stands; without one `state` is "idle", and only what serves is told."""

    rollout: str
    state: str
    weight_percent: float
    champion: str | None
    challenger: str
    reason: str
    requests: int
    gates: list[GateRow]
    eta_s: float | None
    skipped: int
    time_s: float
    supervisor: str  # running or stopped
    problems: dict[str, str]  # {what the controller cannot do now: why}
