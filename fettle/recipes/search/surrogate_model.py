"""Surrogate model of what a recipe will lose: two Bayesian linear regressions on the trials.

Drops are learnt in the scale t(d) = asinh(d / 0.01): linear below a point, logarithmic above, so
that a collapse does not drown the small differences that decide. With t of the drops and e the
epochs trained since the last cut, the prior means are

    after a shrinking move    (0.9 t(parent) + 1.0 ln(parent's value / its value)
                               + 0.8 t(untrained)) / (1 + e / 4)
    after E epochs more       1.0 t(before) e / (e + E) + 0.2 ln(float model's value / its value)

A model hardly trained yet has nearly all to win back, one trained long has little: without the
epochs in it, the first student that learnt nothing more made a pruned model look hopeless. The
coefficients' spread and the noise are below. They are read off six trials on digits and overruled
by a handful of new ones (Bishop 2006, Pattern Recognition and Machine Learning, eq. 3.50 to 3.59).
How far off the surrogate was is reported with every search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fettle.recipes.search.trial import Move, Trial

SCALE = 0.01  # a point
SHRINK = ((0.9, 1.0, 0.8), (0.4, 0.8, 0.4))  # prior means, standard deviations
RECOVER = ((1.0, 0.2), (0.5, 0.3))
EPOCHS = 4  # that halve t, as the prior has it
# One image of 180 is 0.5 in t near nought; two runs of one recipe differ by about as much. The
# residuals overrule it (scaled inverse chi-squared): the prior weighs as much as three trials.
NOISE, NOISE_TRIALS = 0.7, 3

Vector = npt.NDArray[np.float64]


def compress_scale(drop: float) -> float:
    """Return t(drop)."""
    return math.asinh(drop / SCALE)


def expand_scale(t: float) -> float:
    """Return the drop of t, at most 1 either way."""
    return max(-1.0, min(1.0, SCALE * math.sinh(min(t, 50.0))))


@dataclass(frozen=True, slots=True)
class LinearRegression:
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
) -> LinearRegression:
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
) -> LinearRegression:
    mean, spread = np.asarray(prior[0]), np.asarray(prior[1])
    precision = np.diag(spread**-2.0)
    pull = precision @ mean
    for x, t in rows:
        row = np.asarray(x)
        precision = precision + np.outer(row, row) / noise
        pull = pull + row * t / noise
    covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
    return LinearRegression(np.asarray(covariance @ pull), covariance, noise)


@dataclass(frozen=True, slots=True)
class Surrogate:
    """Surrogate: what was learnt of shrinking and of recovering; `root_value` is the float
    model's.
    """

    shrink: LinearRegression
    recover: LinearRegression
    root_value: float

    def after(self, parent: Trial, move: Move) -> tuple[float, float]:
        """Return mean and variance of t(drop) right after `move`'s own evaluation."""
        if move.role == "shrink":
            features = shrink_features(
                parent, value=move.value, probe=move.probe, epochs=move.epochs
            )
            return self.shrink.at(features)
        t = compress_scale(parent.result.drop)
        return self._recovered(t, move.value, parent.epochs, move.epochs)

    def final(self, parent: Trial, move: Move, final_epochs: int) -> tuple[float, float]:
        """Return the same after the recovery of `final_epochs` that would follow a shrinking move.

        It is not expected to end better than its parent would, recovered as long.
        """
        mean, variance = self.after(parent, move)
        if move.role == "recover":
            return mean, variance
        last, spread = self._recovered(mean, move.value, move.epochs, final_epochs)
        t = compress_scale(parent.result.drop)
        uncut, _ = self._recovered(t, move.value, parent.epochs, final_epochs)
        last = max(last, uncut)
        passed_on = float(self.recover.mean[0]) * move.epochs / (move.epochs + final_epochs)
        return last, spread + passed_on**2 * variance

    def _recovered(self, t: float, value: float, before: int, more: int) -> tuple[float, float]:
        features = recover_features(
            t, gone=math.log(self.root_value / value), before=before, more=more
        )
        return self.recover.at(features)


def shrink_features(
    parent: Trial, *, value: float, probe: float, epochs: int
) -> tuple[float, float, float]:
    """Features of a shrinking move."""
    step = math.log(parent.result.value / value)
    kept = 1 / (1 + epochs / EPOCHS)
    return kept * compress_scale(parent.result.drop), kept * step, kept * compress_scale(probe)


def recover_features(t: float, *, gone: float, before: int, more: int) -> tuple[float, float]:
    """Features of a recovery; `before` and `more` are epochs."""
    return t * before / max(1, before + more), gone


def fit(trials: Sequence[Trial]) -> Surrogate:
    """Fit the surrogate to every trial that has a model; the first is the root."""
    root = trials[0].result.value
    rows: dict[str, list[tuple[Sequence[float], float]]] = {"shrink": [], "recover": []}
    for trial in trials:
        if trial.role == "root" or trial.result.refused:
            continue
        parent, t, value = (
            trials[trial.parent],
            compress_scale(trial.result.drop),
            trial.result.value,
        )
        if trial.role == "shrink":
            features = shrink_features(parent, value=value, probe=trial.probe, epochs=trial.epochs)
            rows["shrink"].append((features, t))
        else:
            before = compress_scale(parent.result.drop)
            row_features = recover_features(
                before, gone=math.log(root / value), before=parent.epochs, more=trial.epochs
            )
            rows["recover"].append((row_features, t))
    return Surrogate(regress(SHRINK, rows["shrink"]), regress(RECOVER, rows["recover"]), root)


def likelihood(drop_most: float, mean: float, variance: float) -> float:
    """Likelihood that the drop is at most `drop_most`, for t ~ Normal(mean, variance)."""
    return NormalDist(mean, math.sqrt(variance)).cdf(compress_scale(drop_most))


def prediction_errors(trials: Sequence[Trial]) -> dict[str, float]:
    """Prediction errors of the surrogate on the trials: mean absolute error and rank correlation.

    Drops in shares, values relative. Empty for fewer than two foreseen trials.
    """
    predicted = [
        trial for trial in trials if trial.foreseen_drop is not None and not trial.result.refused
    ]
    if len(predicted) < 2:
        return {}
    foreseen = np.array(
        [[trial.foreseen_drop, trial.foreseen_value] for trial in predicted], dtype=float
    )
    got = np.array([[trial.result.drop, trial.result.value] for trial in predicted])
    return {
        "trials": float(len(predicted)),
        "drop_mean_absolute_error": float(np.abs(foreseen[:, 0] - got[:, 0]).mean()),
        "drop_rank_correlation": spearman(foreseen[:, 0], got[:, 0]),
        "value_mean_relative_error": float(np.abs(foreseen[:, 1] / got[:, 1] - 1).mean()),
        "value_rank_correlation": spearman(foreseen[:, 1], got[:, 1]),
    }


def spearman(first: Vector, second: Vector) -> float:
    """Return Spearman's rank correlation, ties averaged; 0 where one side never varies."""
    ranks = [_ranks(values) for values in (first, second)]
    spread = float(ranks[0].std() * ranks[1].std())
    if spread == 0:
        return 0.0
    return float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread)


def _ranks(values: Vector) -> Vector:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse])
