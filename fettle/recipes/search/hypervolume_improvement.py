"""Expected hypervolume improvement: the next recipe when the whole Pareto front is wanted.

Of all untried moves the one comes next that is expected to add most to the area which the trials
dominate (pareto_front.hypervolume), for each evaluation it takes: expected hypervolume improvement
(Emmerich, Giannakoglou, Naujoks 2006). A move's value is counted before any training, so only its
drop is uncertain, and the expectation is over one number. A shrinking move is worth the better of
two hopes: what it adds as it comes, by one evaluation, and what it adds with its recovery, by two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from fettle.recipes.search import surrogate_model
from fettle.recipes.search.pareto_front import Point, hypervolume
from fettle.recipes.search.trial import Move, Trial

# The middles of so many equal shares of the normal distribution stand for it.
SHARES = 15
QUANTILES = tuple(NormalDist().inv_cdf((share + 0.5) / SHARES) for share in range(SHARES))
SETTLED = 0.001  # of all the area there is: adding less is not worth an evaluation


def choose_move(
    trials: Sequence[Trial],
    untried: Sequence[tuple[Trial, Move]],
    *,
    drop_max: float,
    final_epochs: int,
) -> tuple[Trial, Move] | None:
    """Acquisition: the untried move that is expected to add most, None when all add next to
    nothing.

    The front is wanted up to the value of the float model and up to `drop_max`. Ties go to the
    move that was offered first.
    """
    reference = trials[0].result.value, drop_max
    points = [
        (trial.result.value, trial.result.drop)
        for trial in trials
        if not trial.result.refused and trial.result.excess <= 1
    ]
    dominated, learnt = hypervolume(points, reference), surrogate_model.fit(trials)

    def adds(value: float, foreseen: tuple[float, float]) -> float:
        return expected_area(points, value, foreseen, reference) - dominated

    best, chosen = SETTLED * hypervolume([(0.0, 0.0)], reference), None
    for parent, move in untried:
        hope = adds(move.value, learnt.after(parent, move))
        if move.role == "shrink":
            later = adds(move.value, learnt.final(parent, move, final_epochs)) / 2
            hope = max(hope, later)
        if move.excess <= 1 and hope > best:
            best, chosen = hope, (parent, move)
    return chosen


def expected_area(
    points: Sequence[Point], value: float, foreseen: tuple[float, float], reference: Point
) -> float:
    """Hypervolume expected with one more point: its drop's t is Normal(mean, variance)."""
    mean, deviation = foreseen[0], math.sqrt(foreseen[1])
    areas = (
        hypervolume(
            [*points, (value, surrogate_model.expand_scale(mean + quantile * deviation))], reference
        )
        for quantile in QUANTILES
    )
    return math.fsum(areas) / SHARES
