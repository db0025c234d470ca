"""Shadow gate: a fixed number of held-out images, each answered once by both arms, judged once.

The null is about images that nobody has seen, so no image may count twice, and there is one look:
when the last of them is answered. A set too small for the plan's margins decides at the least
margin that it can (`least_accuracy_margin`), which is said before and after: what is asked of
the challenger then is that, not the plan's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from fettle.rollout.promotion.e_process import Bools, Floats, sizes
from fettle.rollout.promotion.rollout_plan import RolloutPlan

# Pairs that only the one arm, and as many that only the other, gets wrong; answers that differ:
# what an equal challenger shows (a re-trained digits model: 0.9 % each, 2 %).
ONE_WRONG, DIFFER = 0.01, 0.02
POWER = 0.95
STEP = 0.0005  # margins are sought on this grid


@dataclass
class ShadowGate:
    """Counts of the pairs, [rows], and what the one look says."""

    n: Floats
    labelled: Floats
    differ: Floats
    lost: Floats  # only the champion was right
    gained: Floats
    wrong: Floats  # [rows, arms]
    accuracy_passed: Bools
    accuracy_failed: Bools
    disagreement_passed: Bools
    disagreement_failed: Bools


def start(rows: int = 1) -> ShadowGate:
    """Return the state before any pair."""
    return ShadowGate(
        n=sizes(rows),
        labelled=sizes(rows),
        differ=sizes(rows),
        lost=sizes(rows),
        gained=sizes(rows),
        wrong=sizes(rows, 2),
        accuracy_passed=np.zeros(rows, bool),
        accuracy_failed=np.zeros(rows, bool),
        disagreement_passed=np.zeros(rows, bool),
        disagreement_failed=np.zeros(rows, bool),
    )


def update(
    state: ShadowGate,
    plan: RolloutPlan,
    images: int,
    *,
    differ: Bools,
    champion_wrong: Bools | None,
    challenger_wrong: Bools | None,
) -> None:
    """Take one pair a row, arrays [rows], of `images` in all; more than those tell nothing."""
    counts = state.n < images
    state.n += counts
    state.differ += counts & differ
    if champion_wrong is not None and challenger_wrong is not None:
        state.labelled += counts
        state.lost += counts & challenger_wrong & ~champion_wrong
        state.gained += counts & champion_wrong & ~challenger_wrong
        state.wrong += counts[:, None] & np.stack([champion_wrong, challenger_wrong], axis=1)
    at = np.flatnonzero(counts & (state.n == images))
    for row in at:
        _judge(state, plan, int(row), images)


def _judge(state: ShadowGate, plan: RolloutPlan, row: int, images: int) -> None:
    """Look once, at all the images."""
    n, lost, gained = int(state.labelled[row]), int(state.lost[row]), int(state.gained[row])
    margin = accuracy_margin(plan, images)
    state.accuracy_passed[row] = n > 0 and score(lost, gained, n, margin) <= -_z(plan.alpha_promote)
    discordant = lost + gained
    alpha = plan.alpha_fail("accuracy")
    state.accuracy_failed[row] = lost > gained and _upper_tail(lost, discordant, 0.5) <= alpha
    differ = int(state.differ[row])
    limit = disagreement_limit(plan, images)
    under = 1 - _upper_tail(differ + 1, images, limit)
    state.disagreement_passed[row] = under <= plan.alpha_promote
    over = _upper_tail(differ, images, limit)
    state.disagreement_failed[row] = over <= plan.alpha_fail("disagreement")


def score(lost: float, gained: float, n: int, margin: float) -> float:
    """Return Tango's score of "the accuracy lost is the margin" (1998, Statistics in Medicine 17).

    Below minus the normal quantile the loss is proved to be smaller.
    """
    a = 2 * n
    b = -lost - gained + (2 * n - lost + gained) * margin
    c = -gained * margin * (1 - margin)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * share + margin * (1 - margin))
    return (lost - gained - n * margin) / math.sqrt(variance) if variance > 0 else math.inf


def accuracy_margin(plan: RolloutPlan, images: int) -> float:
    """Return the margin that is asked of so many images: the plan's, or the least they decide."""
    return max(plan.accuracy_margin, least_accuracy_margin(images, plan.alpha_promote))


def disagreement_limit(plan: RolloutPlan, images: int) -> float:
    """Return the limit that is asked of so many images."""
    return max(plan.disagreement_max, least_disagreement_limit(images, plan.alpha_promote))


@cache
def least_accuracy_margin(images: int, alpha: float) -> float:
    """Return the least margin at which an equal challenger passes with 95 %."""
    discordant = 2 * ONE_WRONG * images
    apart = _z(1 - POWER) * math.sqrt(discordant)
    lost, gained = (discordant + apart) / 2, max(0.0, (discordant - apart) / 2)
    return _least(lambda margin: images > 0 and score(lost, gained, images, margin) <= -_z(alpha))


@cache
def least_disagreement_limit(images: int, alpha: float) -> float:
    """Return the least limit at which one that answers 2 % differently passes with 95 %."""
    count = 0
    while images and _upper_tail(count + 1, images, DIFFER) > 1 - POWER:
        count += 1
    return _least(lambda limit: images > 0 and 1 - _upper_tail(count + 1, images, limit) <= alpha)


def _least(decides: Callable[[float], bool]) -> float:
    """Return the first point of the grid that decides, 1 where none does."""
    points = np.arange(1, round(1 / STEP)) * STEP
    return next((float(point) for point in points if decides(float(point))), 1.0)


def _z(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha)


def _upper_tail(k: int, n: int, p: float) -> float:
    """Return P(X >= k) of a binomial."""
    if k <= 0:
        return 1.0
    if k > n or p <= 0:
        return 0.0
    counts = np.arange(k, n + 1)
    return float(
        min(
            1.0,
            np.exp(_log_choose(n)[k:] + counts * math.log(p) + (n - counts) * math.log1p(-p)).sum(),
        )
    )


@cache
def _log_choose(n: int) -> Floats:
    """Return log(n over k) for k = 0 … n."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    found: Floats = logs[n] - logs - logs[::-1]
    return found
