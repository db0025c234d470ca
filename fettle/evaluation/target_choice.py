"""Target choice: which of the measured files is shipped, by the objective, and why.

Where the speed-up intervals of two targets overlap they are a tie, and the smaller file wins.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fettle.evaluation import paired_evidence
from fettle.evaluation.passing_probability import PassingForecast
from fettle.facts.evaluate_facts import ANSWERS
from fettle.measure import Measure
from fettle.params_schema import Budget

ROUNDING = 1e-9  # 2 of 100 images are 2 points


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target that may ship: its speed-up, bytes, how the budget will stand on test, energy an
    image where it was measured, and the limits it breaks.
    """

    target: str
    size_bytes: int
    speedup: Measure
    foreseen: PassingForecast
    energy: Measure | None = None
    over: tuple[str, ...] = ()


def prefer_faster(
    chosen: Candidate,
    why: str,
    candidates: Sequence[Candidate],
    folders: Mapping[str, Path],
    budget: Budget,
) -> tuple[Candidate, str]:
    """Prefer a file that is faster beyond its interval, unless the evidence against it is real.

    Few validation images put a good file outside the budget's forecast. It is taken all the same
    when its own drop lies within the budget, and it is not shown to be worse than the file that
    the forecast let in.
    """
    for faster in sorted(candidates, key=lambda one: (-one.speedup.value, one.target)):
        if _low(faster.speedup) <= _high(chosen.speedup):
            break
        if faster.over or faster.foreseen.drop > budget.drop_share + ROUNDING:
            continue
        evidence = paired_evidence.compare(
            folders[chosen.target] / ANSWERS, folders[faster.target] / ANSWERS
        )
        if not evidence.is_real(budget.confidence):
            return faster, (
                f"the fastest that is not shown to be worse: {faster.speedup.value:.2f}x the float "
                f"model's speed; of {evidence.n:,} validation images it loses {evidence.lost} and "
                f"gains {evidence.gained} against {chosen.target}, {chosen.speedup.value:.2f}x "
                f"(p = {evidence.p_value:.2f})"
            )
    return chosen, why


def nearest_miss(candidates: list[Candidate], budget: Budget) -> tuple[Candidate, str]:
    """Return the nearest miss, and what it misses."""
    chosen = min(
        candidates,
        key=lambda candidate: (
            len(candidate.over),
            -candidate.foreseen.chance,
            candidate.size_bytes,
            candidate.target,
        ),
    )
    if chosen.over:
        return chosen, f"no target keeps every limit: of {chosen.target} " + "; ".join(chosen.over)
    forecast = chosen.foreseen
    return chosen, (
        f"no target is likely enough to keep the drop of {budget.metric} within "
        f"{budget.drop_share:g} on test: {chosen.target} is with probability "
        f"{forecast.chance:.2f}, below {forecast.chance_min:.2f}, after a drop of "
        f"{forecast.drop:.4f} on validation"
    )


def best_candidate(candidates: list[Candidate], minimise: str) -> tuple[Candidate, str]:
    """Return the best candidate by the objective, and why."""
    smallest = min(candidates, key=lambda candidate: (candidate.size_bytes, candidate.target))
    count = f"of {len(candidates)} that may ship" if len(candidates) > 1 else "that may ship"
    if minimise == "size_bytes":
        return smallest, f"the smallest {count}: {smallest.size_bytes:,} bytes"
    if minimise == "energy_j":
        saving = min(candidates, key=lambda candidate: (_joules(candidate), candidate.target))
        return saving, f"the least energy {count}: {_joules(saving):.3g} J an image"
    fastest = max(candidates, key=lambda candidate: candidate.speedup.value)
    tied = [
        candidate for candidate in candidates if _high(candidate.speedup) >= _low(fastest.speedup)
    ]
    chosen = min(
        tied,
        key=lambda candidate: (candidate.size_bytes, -candidate.speedup.value, candidate.target),
    )
    speed = f"{chosen.speedup.value:.2f}x the float model's speed"
    if chosen is fastest:
        return chosen, f"the fastest {count}: {speed}"
    return chosen, (
        f"the smallest of the fastest {count}: {speed}, a tie with {fastest.target}'s "
        f"{fastest.speedup.value:.2f}x, at {chosen.size_bytes:,} bytes"
    )


def _joules(candidate: Candidate) -> float:
    return math.inf if candidate.energy is None else candidate.energy.value


def _low(measure: Measure) -> float:
    return measure.value if measure.low is None else measure.low


def _high(measure: Measure) -> float:
    return measure.value if measure.high is None else measure.high
