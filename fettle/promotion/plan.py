"""State how a rollout goes: its steps, margins, error rates; values only, read from `promote`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256
from json import dumps
from typing import Self

from fettle.sections import Promote

LIVE_GATES = ("errors", "latency", "accuracy")
SHADOW_GATES = ("accuracy", "disagreement")
GATES = ("errors", "latency", "accuracy", "disagreement")  # each may roll back: alpha is split


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One weight: what must PASS before the next, and how many times the margins it allows."""

    weight_percent: float
    margin_times: float
    gates: tuple[str, ...]

    @property
    def weight(self) -> float:
        """Return the challenger's share, 0 to 1."""
        return self.weight_percent / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole plan. Margins: errors and accuracy in shares (0.01 is one point), p95 a ratio."""

    steps: tuple[Step, ...]
    shadow_requests: int
    bake_s: float
    bake_requests: int
    step_budget_requests: int
    step_min_s: float
    alpha_rollback: float
    alpha_promote: float
    errors_margin: float
    accuracy_margin: float
    latency_p95_ratio: float
    disagreement_max: float
    both_failing_max: float
    drift_tolerance: float
    sticky_key: str | None
    lease_s: float

    @classmethod
    def of(cls, section: Promote) -> Self:
        """Read the section `promote` of params.yaml."""
        fields = section.model_dump()
        steps = tuple(Step(**{**one, "gates": tuple(one["gates"])}) for one in fields.pop("steps"))
        return cls(steps=steps, **fields)

    def alpha_rollback_each(self) -> float:
        """Return the rollback alpha of one gate in one step, by Bonferroni over both.

        Steps: shadow, each weight, and the bake. Every step starts its evidence anew, because a
        release that was good an hour ago may leak by now.
        """
        return self.alpha_rollback / (len(GATES) * (len(self.steps) + 2))

    def digest(self) -> str:
        """Return the sha256 of the plan; the journal pins it."""
        return sha256(dumps(asdict(self), sort_keys=True).encode()).hexdigest()
