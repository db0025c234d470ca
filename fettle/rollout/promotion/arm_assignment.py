"""Propensity of an assignment: the chance that the challenger was drawn, given what came before.

Drawn anew for each request, that is the weight. With a sticky key the unit is the user, and a user
is drawn once: the key's hash h in [0, 1) goes to the challenger while h < weight. What a user sent
before tells where h lies, so the chance of the next request is

    (weight - low) / (high - low), clipped to [0, 1],   with h known to lie in [low, high)

A heavy user's second request at the same weight has the chance 0 or 1, and carries no evidence: a
hundred failures of one user are one. When the weight rises, users of the champion are drawn again,
with the right chance. So the tests of e_process.py hold for sticky traffic as they stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Assignment:
    """Where each key's hash is known to lie: [low, high)."""

    known: dict[str, tuple[float, float]] = field(default_factory=dict)

    def propensity(self, key: str | None, weight: float) -> float:
        """Return the chance that this request was drawn for the challenger."""
        if key is None:
            return weight
        low, high = self.known.get(key, (0.0, 1.0))
        if weight <= low:
            return 0.0
        return 1.0 if weight >= high else (weight - low) / (high - low)

    def learn(self, key: str | None, weight: float, *, challenger: bool) -> None:
        """Note where the draw went."""
        if key is None:
            return
        low, high = self.known.get(key, (0.0, 1.0))
        bounds = (low, min(high, weight)) if challenger else (max(low, weight), high)
        if bounds[0] < bounds[1]:  # a router that moves a user back leaves nothing to learn
            self.known[key] = bounds
