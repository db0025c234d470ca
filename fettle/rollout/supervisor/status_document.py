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
    """Where a rollout stands; without one `state` is "idle", and only what serves is told.

    `weight_percent` is what users meet now; `decided_percent` is there where more was decided, and
    nobody judges now. `skipped` counts log lines left out, and is not there for a rollout that
    cannot be read.
    """

    rollout: str | None
    state: str
    weight_percent: float
    decided_percent: float
    champion: str | None
    challenger: str | None
    reason: str
    requests: int
    gates: list[GateRow]
    eta_s: float | None
    skipped: int
    time_s: float
    supervisor: str  # running or stopped
    serves: bool  # whether the public address answers
    problems: dict[str, str]  # {what the controller cannot do now: why}
