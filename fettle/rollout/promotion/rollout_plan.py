"""Rollout plan: steps, margins, error rates; values only, read from `promote`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from json import dumps
from typing import Any, Self, TypeAlias

from fettle.json_values import JsonObject
from fettle.params_schema import OnDrift, Promote

# How alpha_rollback is shared out (Bonferroni). Errors have most: they harm at once, and the goal
# "5x the errors within 500 requests" needs it. Promotion shares nothing out: it needs every gate,
# so that alpha_promote bounds each and all of them (an intersection-union test, Berger 1982).
SHARES = {"errors": 0.45, "refused": 0.1, "latency": 0.25, "accuracy": 0.15, "disagreement": 0.05}
# Of a rate's share so much goes to the fast path (two_sample_test.py), the rest to span_test.py.
FAST_SHARE = {"errors": 0.9, "refused": 0.9, "latency": 0.0}
# A step with a wide margin only lets in more traffic; a false promotion has to pass the last one
# at alpha_promote itself. So it may err this many times as often, at most in 1 of 20.
WIDE_STEP_TIMES, WIDE_STEP_MOST = 5, 0.05


# of any version; the dataclass that it fills checks its keys
Stored: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]  # a journal's own words

# Journals and orders outlive an upgrade: they keep the names that they began with.
_STORED = {"margin_times": "margin_multiplier"}


def section_to_json(section: Promote) -> JsonObject:
    """Return the section `promote` as an order to the supervisor holds it."""
    names = {name: stored for stored, name in _STORED.items()}
    doc = section.model_dump(mode="json")
    steps = [{names.get(name, name): v for name, v in step.items()} for step in doc["steps"]]
    return {**doc, "steps": steps}


def section_from_json(doc: object) -> Promote:
    """Read the section of an order back, by either name; raises ValidationError when it is none."""
    if isinstance(doc, Mapping) and isinstance(doc.get("steps"), list):
        steps = [
            {_STORED.get(name, name): v for name, v in step.items()}
            if isinstance(step, Mapping)
            else step
            for step in doc["steps"]
        ]
        doc = {**doc, "steps": steps}
    return Promote.model_validate_json(dumps(doc))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One weight: what must PASS before the next, and how many times the margins it allows."""

    weight_percent: float
    margin_multiplier: float
    gates: tuple[str, ...]

    @property
    def weight(self) -> float:
        """Return the challenger's share, 0 to 1."""
        return self.weight_percent / 100

    def to_json(self) -> dict[str, object]:
        """Return the step as a journal stores it: under the names that it began with."""
        return {
            "weight_percent": self.weight_percent,
            "margin_times": self.margin_multiplier,
            "gates": self.gates,
        }

    @classmethod
    def from_json(cls, doc: Stored) -> Self:
        """Read a step of a journal back."""
        fields = {_STORED.get(name, name): value for name, value in doc.items()}
        return cls(**{**fields, "gates": tuple(fields["gates"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """The whole plan. Margins: errors and accuracy in shares (0.01 is one point), p95 a ratio."""

    steps: tuple[Step, ...]
    shadow_requests: int
    shadow_gates: tuple[str, ...]
    bake_s: float
    bake_requests: int
    step_budget_requests: int
    step_min_s: float
    alpha_rollback: float
    alpha_promote: float
    errors_margin: float
    accuracy_margin: float
    latency_p95_ratio: float
    size_ratio_max: float
    disagreement_max: float
    both_failing_max: float
    drift_tolerance: float
    sticky_key: str | None
    lease_s: float
    on_drift: OnDrift = "hold"  # journals of before know no such choice

    @classmethod
    def of(cls, section: Promote) -> Self:
        """Read the section `promote` of params.yaml."""
        fields = section.model_dump()
        steps = tuple(Step(**{**one, "gates": tuple(one["gates"])}) for one in fields.pop("steps"))
        shadow = tuple(fields.pop("shadow_gates"))
        return cls(steps=steps, shadow_gates=shadow, **fields)

    def alpha_fail(self, gate: str) -> float:
        """Return the rollback alpha of this gate in one step (of the whole rollout, or shadow).

        Errors and latency begin anew in each step, because a release that was good an hour ago
        may leak by now: their share is split over the steps, and over one comparison after an
        alarm in the bake. Accuracy is judged once in shadow, and once by late labels.
        """
        parts = {"accuracy": 2, "disagreement": 1}
        return self.alpha_rollback * SHARES[gate] / parts.get(gate, len(self.steps) + 1)

    @property
    def alpha_wide(self) -> float:
        """Return the error of a pass at a step whose margins are wider than the plan's."""
        return min(WIDE_STEP_MOST, WIDE_STEP_TIMES * self.alpha_promote)

    def to_json(self) -> dict[str, object]:
        """Return the plan as a journal stores it."""
        return {**asdict(self), "steps": tuple(step.to_json() for step in self.steps)}

    def digest(self) -> str:
        """Return the sha256 of the plan; the journal pins it."""
        return sha256(dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
