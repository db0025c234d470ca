"""A trial evaluator without models: shares are kept, drops follow a formula. A real double, no
mock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fettle.recipes.search.trial import Move, Recipe, Result

ROOT = Result(value=100.0, drop=0.0, chance=1.0)
SHARES = (0.75, 0.5, 0.35)
FINAL_EPOCHS = 16
STEPS_MAX = 6


class Toy:
    """`hardness` is the share of the value at which the drop after recovery reaches two points."""

    def __init__(self, hardness: float = 0.1, budget: float = 0.02, floor: float = 1.0) -> None:
        self.hardness, self.budget, self.floor = hardness, budget, floor
        self.evaluated: list[list[float]] = []

    def share(self, recipe: Recipe) -> float:
        return math.prod(float(step["keep"]) for step in recipe if step["use"] == "cut")

    def drop(self, recipe: Recipe) -> float:
        """Halved by a recovery; a harsh cut costs more than two mild ones to the same width."""
        harsh = sum((1 - float(s["keep"])) ** 2 for s in recipe if s["use"] == "cut")
        raw = min(0.9, 0.04 * (self.hardness / self.share(recipe)) ** 1.5 + 0.004 * harsh)
        return raw / 2 if recipe and recipe[-1]["use"] == "mend" else raw

    def chance(self, drop: float) -> float:
        return 1 / (1 + math.exp(min(500.0, (drop - self.budget) / 0.003)))

    def moves(self, recipe: Recipe) -> Sequence[Move]:
        value = ROOT.value * self.share(recipe)
        cuts = [
            Move(step={"use": "cut", "keep": share}, role="shrink", value=value * share, epochs=2)
            for share in SHARES
            if value * share > self.floor and len(recipe) < STEPS_MAX
        ]
        if not recipe:
            return cuts
        return [*cuts, Move(step={"use": "mend"}, role="recover", value=value, epochs=FINAL_EPOCHS)]

    def evaluate(self, recipe: Recipe) -> Result:
        self.evaluated.append([float(step.get("keep", 0)) for step in recipe])
        drop = self.drop(recipe)
        return Result(
            value=ROOT.value * self.share(recipe), drop=drop, chance=self.chance(drop), excess=0.5
        )
