"""Foretell what a recipe will lose, from the trials so far: two Bayesian linear regressions.

Drops are learnt in the scale t(d) = asinh(d / 0.01): linear below a point, logarithmic above, so
that a collapse does not drown the small differences that decide. With t of the drops,

    after a shrinking move    0.7 t(parent) + 0.3 ln(parent's value / its value) + 0.15 t(untrained)
    after a recovery          0.5 t(before) + 0.1 ln(float model's value / its value)

are the prior means; the coefficients' spread and the noise are below. They felt right before any
trial and are overruled by a handful of them (Bishop 2006, Pattern Recognition and Machine Learning,
eq. 3.50 to 3.59). How far off it was is reported with every search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.search.trial import Move, Trial

SCALE = 0.01  # a point
SHRINK = ((0.7, 0.3, 0.15), (0.3, 0.4, 0.2))  # prior means, standard deviations
RECOVER = ((0.5, 0.1), (0.3, 0.3))
# One image of 180 is 0.5 in t near nought; two runs of one recipe differ by about as much. The
# residuals overrule it (scaled inverse chi-squared): the prior weighs as much as three trials.
NOISE, NOISE_TRIALS = 0.7, 3
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(7)  # exact for polynomials up to degree 13

Vector = npt.NDArray[np.float64]


def compress_scale(drop: float) -> float:
    """Return t(drop)."""
    return math.asinh(drop / SCALE)


def expand_scale(t: float) -> float:
    """Return the drop of t, at most 1 either way."""
    return max(-1.0, min(1.0, SCALE * math.sinh(min(t, 50.0))))


@dataclass(frozen=True, slots=True)
class Line:
    """A posterior over coefficients: mean [k], covariance [k, k]; and the noise's variance."""

    mean: Vector
    covariance: Vector
    noise: float

    def at(self, x: Sequence[float]) -> tuple[float, float]:
        """Return the mean and the variance, noise included, at the features `x`."""
        row = np.asarray(x)
        return float(row @ self.mean), float(row @ self.covariance @ row) + self.noise


def regress(
    prior: tuple[tuple[float, ...], tuple[float, ...]],
    rows: Sequence[tuple[Sequence[float], float]],
) -> Line:
    """Return the posterior after `rows` of (features, t): first with the prior's noise, then with
    what its residuals say.
    """
    first = _regress(prior, rows, NOISE**2)
    squares = sum((float(np.asarray(x) @ first.mean) - t) ** 2 for x, t in rows)
    learnt = (NOISE_TRIALS * NOISE**2 + squares) / (NOISE_TRIALS + len(rows))
    return _regress(prior, rows, learnt)


def _regress(
    prior: tuple[tuple[float, ...], tuple[float, ...]],
    rows: Sequence[tuple[Sequence[float], float]],
    noise: float,
) -> Line:
    mean, spread = np.asarray(prior[0]), np.asarray(prior[1])
    precision = np.diag(spread**-2.0)
    pull = precision @ mean
    for x, t in rows:
        row = np.asarray(x)
        precision = precision + np.outer(row, row) / noise
        pull = pull + row * t / noise
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    return Line(np.asarray(covariance @ pull), covariance, noise)


@dataclass(frozen=True, slots=True)
class Surrogate:
    """What was learnt of shrinking and of recovering; `root_value` is the float model's."""

    shrink: Line
    recover: Line
    root_value: float

    def after(self, parent: Trial, move: Move) -> tuple[float, float]:
        """Return mean and variance of t(drop) right after `move`'s own evaluation."""
        if move.role == "shrink":
            return self.shrink.at(shrink_features(parent, move.value, move.probe))
        t = compress_scale(parent.result.drop)
        return self.recover.at(self._recover_features(t, move.value))

    def final(self, parent: Trial, move: Move) -> tuple[float, float]:
        """Return the same after the recovery that would follow a shrinking move."""
        mean, variance = self.after(parent, move)
        if move.role == "recover":
            return mean, variance
        last, spread = self.recover.at(self._recover_features(mean, move.value))
        return last, spread + float(self.recover.mean[0]) ** 2 * variance

    def _recover_features(self, t: float, value: float) -> tuple[float, float]:
        return t, math.log(self.root_value / value)


def shrink_features(parent: Trial, value: float, probe: float) -> tuple[float, float, float]:
    """Return what a shrinking move is judged by."""
    step = math.log(parent.result.value / value)
    return compress_scale(parent.result.drop), step, compress_scale(probe)


def fit(trials: Sequence[Trial]) -> Surrogate:
    """Learn from every trial that has a model; the first is the root."""
    root = trials[0].result.value
    rows: dict[str, list[tuple[Sequence[float], float]]] = {"shrink": [], "recover": []}
    for one in trials:
        if one.role == "root" or one.result.refused:
            continue
        parent, t = trials[one.parent], compress_scale(one.result.drop)
        if one.role == "shrink":
            rows["shrink"].append((shrink_features(parent, one.result.value, one.probe), t))
        else:
            before = compress_scale(parent.result.drop)
            rows["recover"].append(((before, math.log(root / one.result.value)), t))
    return Surrogate(regress(SHRINK, rows["shrink"]), regress(RECOVER, rows["recover"]), root)


def expected(chance: Callable[[float], float], mean: float, variance: float) -> float:
    """Average `chance(drop)` over t ~ Normal(mean, variance)."""
    drops = [expand_scale(mean + math.sqrt(variance) * float(node)) for node in NODES]
    total = sum(float(w) * chance(drop) for w, drop in zip(WEIGHTS, drops, strict=True))
    return total / float(WEIGHTS.sum())


def errors(trials: Sequence[Trial]) -> dict[str, float]:
    """Report how well the trials were foreseen: mean absolute error and rank correlation.

    Drops in shares, values relative. Empty for fewer than two foreseen trials.
    """
    told = [one for one in trials if one.foreseen_drop is not None and not one.result.refused]
    if len(told) < 2:
        return {}
    foreseen = np.array([[one.foreseen_drop, one.foreseen_value] for one in told], dtype=float)
    got = np.array([[one.result.drop, one.result.value] for one in told])
    return {
        "trials": float(len(told)),
        "drop_mean_absolute_error": float(np.abs(foreseen[:, 0] - got[:, 0]).mean()),
        "drop_rank_correlation": spearman(foreseen[:, 0], got[:, 0]),
        "value_mean_relative_error": float(np.abs(foreseen[:, 1] / got[:, 1] - 1).mean()),
        "value_rank_correlation": spearman(foreseen[:, 1], got[:, 1]),
    }


def spearman(first: Vector, second: Vector) -> float:
    """Return Spearman's rank correlation, ties averaged; 0 where one side never varies."""
    ranks = [_ranks(one) for one in (first, second)]
    spread = float(ranks[0].std() * ranks[1].std())
    if spread == 0:
        return 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread)


def _ranks(values: Vector) -> Vector:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse])
