"""Rollout status: the content of status.json, as `fettle canary status --json` prints it."""

from __future__ import annotations

from typing import TypedDict


class RolloutStatus(TypedDict, total=False):
    """Where a rollout stands; nothing where none is watched.

    `gates` are the last verdicts (GateResult as JSON); `skipped` counts log lines left out, and is
    not there for a rollout that cannot be read.
    """

    rollout: str | None
    state: str
    weight_percent: float
    champion: str | None
    challenger: str | None
    reason: str
    requests: int
    gates: list[dict[str, object]]
    eta_s: float | None
    skipped: int
    time_s: float
