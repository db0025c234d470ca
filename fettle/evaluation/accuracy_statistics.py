"""Accuracy statistics, with intervals that stay honest on small and perfect samples.

Shapes everywhere: `logits` float [N, classes], `labels` int [N] into them. Rows that already are
probabilities (third-party models often end in a softmax) are taken as such. Intervals are 95 %:

    accuracy, recall    Wilson (1927)
    accuracy drop       Tango (1998), see `paired_drop`
    macro-F1, its drop  seeded bootstrap over the images; None where it has no width
    calibration error   none: binning biases it upwards, and resampling adds that bias again
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fettle.measure import Measure
from fettle.params_schema import METRICS

Floats = npt.NDArray[np.float32 | np.float64]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.int64 | np.float64]  # of images: how often each is drawn
Number = TypeVar("Number", float, Doubles)

Z = 1.959963984540054  # the normal quantile of a two-sided 95 % interval
BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks"
RESAMPLES = 1000  # percentile ends move by under a tenth of the interval's width beyond this
RESAMPLES_AT_ONCE = 100
SEED = 20  # of the bootstrap only: equal inputs give equal intervals


def summary(logits: Floats, labels: Labels) -> dict[str, Measure]:
    """Take every metric of METRICS at once."""
    return {
        "accuracy": accuracy(logits, labels),
        "macro_f1": macro_f1(logits, labels),
        "worst_recall": worst_recall(logits, labels),
        "calibration_error": calibration_error(logits, labels),
    }


def accuracy(logits: Floats, labels: Labels) -> Measure:
    """Count the share of right answers, with Wilson's interval."""
    right = int(correct(logits, labels).sum())
    return proportion(right, len(labels))


def correct(logits: Floats, labels: Labels) -> Bools:
    """Tell which answers are right: bool [N]."""
    return np.asarray(logits.argmax(axis=1) == labels)


def proportion(successes: int, n: int) -> Measure:
    """Return successes / n with Wilson's score interval (Wilson 1927; Newcombe 1998, method 3)."""
    share = successes / n
    centre = share + Z**2 / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    scale = 1 + Z**2 / n
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Measure(value=share, unit="1", n=n, low=min(low, share), high=max(high, share))


def confusion(logits: Floats, labels: Labels) -> npt.NDArray[np.int64]:
    """Count answers: int [classes, classes], row = true class, column = predicted class."""
    classes = logits.shape[1]
    cells = np.bincount(labels * classes + logits.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes)


def recalls(logits: Floats, labels: Labels) -> Doubles:
    """Return each class's share of found images: float [classes], NaN for a class without any."""
    table = confusion(logits, labels).astype(np.float64)
    return _ratio(np.diagonal(table), table.sum(axis=1))


def recall_measures(logits: Floats, labels: Labels, classes: list[str]) -> dict[str, Measure]:
    """Return {class name: recall with Wilson's interval}, without classes that have no image."""
    table = confusion(logits, labels)
    return {
        name: proportion(int(table[index, index]), int(table[index].sum()))
        for index, name in enumerate(classes)
        if table[index].sum()
    }


def worst_recall(logits: Floats, labels: Labels) -> Measure:
    """Return the lowest recall of a class, with Wilson's interval over that class's images.

    The interval knows nothing of the choice of the worst among many, so it sits a little low.
    """
    table = confusion(logits, labels)
    worst = int(np.nanargmin(recalls(logits, labels)))
    return proportion(int(table[worst, worst]), int(table[worst].sum()))


def macro_f1(logits: Floats, labels: Labels) -> Measure:
    """Return the mean of the classes' F1 over classes with an image or an answer.

    A flawless sample resamples to itself: then there is no interval, not one of width zero.
    """
    classes, answers = logits.shape[1], logits.argmax(axis=1)
    kinds, counts = np.unique(np.stack([labels, answers], axis=1), axis=0, return_counts=True)

    def score(weights: Weights) -> Doubles:
        return _macro_f1(_counts(kinds[:, 0], kinds[:, 1], weights, classes))

    return _percentiles(float(score(counts[None])[0]), _redraw(score, counts), len(labels))


def probabilities(logits: Floats) -> Doubles:
    """Apply softmax: float [N, classes]; rows that are already probabilities are kept."""
    rows = np.asarray(logits, dtype=np.float64)
    if rows.min() >= 0 and np.allclose(rows.sum(axis=1), 1, atol=1e-3):
        return rows
    exponents = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def calibration_error(logits: Floats, labels: Labels) -> Measure:
    """Return the expected calibration error over 15 equal-width bins (Guo et al. 2017, eq. 3)."""
    value = _calibration_error(probabilities(logits), correct(logits, labels))
    return Measure(value=value, unit="1", n=len(labels))


def churn(reference: Floats, candidate: Floats) -> Measure:
    """Return the share of images whose predicted class differs between two models."""
    flipped = reference.argmax(axis=1) != candidate.argmax(axis=1)
    return proportion(int(flipped.sum()), len(flipped))


def drop(metric: str, reference: Floats, candidate: Floats, labels: Labels) -> Measure:
    """Return how much worse the candidate is in `metric` on the same images (positive = worse).

    For calibration_error worse is higher, for the others lower.
    """
    if metric not in METRICS:
        raise ValueError(f"no metric '{metric}', there are {METRICS}")
    if metric == "accuracy":
        return paired_drop(correct(reference, labels), correct(candidate, labels))
    if metric == "calibration_error":
        before, after = (
            calibration_error(logits, labels).value for logits in (reference, candidate)
        )
        return Measure(value=after - before, unit="1", n=len(labels))
    gap, drawn = _drop_draws(metric, reference, candidate, labels)
    return _percentiles(gap, drawn, len(labels))


def drawn_drops(metric: str, reference: Floats, candidate: Floats, labels: Labels) -> Doubles:
    """Return the bootstrap's drops of macro_f1 or worst_recall: float [RESAMPLES]."""
    return _drop_draws(metric, reference, candidate, labels)[1]


def _drop_draws(
    metric: str, reference: Floats, candidate: Floats, labels: Labels
) -> tuple[float, Doubles]:
    score = _macro_f1 if metric == "macro_f1" else _worst_recall
    classes = reference.shape[1]
    triples = np.stack([labels, reference.argmax(axis=1), candidate.argmax(axis=1)], axis=1)
    kinds, counts = np.unique(triples, axis=0, return_counts=True)

    def gaps(weights: Weights) -> Doubles:
        before, after = (_counts(kinds[:, 0], kinds[:, axis], weights, classes) for axis in (1, 2))
        return score(before) - score(after)

    return float(gaps(counts[None])[0]), _redraw(gaps, counts)


def paired_drop(reference_correct: Bools, candidate_correct: Bools) -> Measure:
    """Return the accuracy lost between two models on the same images, with Tango's interval.

    With b images that only the reference got right, c that only the candidate got right, out of n,
    the drop is (b - c) / n. Its interval is the set of drops d that the score test does not reject:

        |b - c - n d| <= z sqrt(n (2 q + d (1 - d)))

    where q is the maximum-likelihood share of the c-cell under the drop d, the larger root of
    2n q^2 + ((2n - b + c) d - b - c) q - c d (1 - d) = 0 (Tango 1998, Statistics in Medicine 17,
    pp. 891-908, section 4). Without one discordant pair it is +-z^2 / (n + z^2), where Wald's
    interval and the bootstrap give [0, 0]: false certainty. Coverage by simulation is in the test.
    """
    n = len(reference_correct)
    only_reference = int((reference_correct & ~candidate_correct).sum())
    only_candidate = int((~reference_correct & candidate_correct).sum())
    low, high = tango_interval(only_reference, only_candidate, n)
    value = (only_reference - only_candidate) / n
    return Measure(value=value, unit="1", n=n, low=min(low, value), high=max(high, value))


def tango_score(
    b: Number, c: Number, n: int, d: float, *, sqrt: Callable[[Number], Number]
) -> tuple[Number, Number]:
    """Return Tango's score of "the drop is d" in its two parts: b - c - n d, and its variance.

    The score is the first over the root of the second; see paired_drop. For counts of any one
    shape, or one of each, with the `sqrt` of their kind.
    """
    linear = (2 * n - b + c) * d - b - c
    inner = linear**2 + 8 * n * c * d * (1 - d)
    root = sqrt((inner + abs(inner)) / 2)  # rounding may leave it below zero
    return b - c - n * d, n * ((root - linear) / (2 * n) + d * (1 - d))


def tango_interval(b: float, c: float, n: int, *, z: float = Z) -> tuple[float, float]:
    """Return Tango's interval of (b - c) / n by bisection: the score falls as the drop grows."""

    def score(d: float) -> float:
        gap, variance = tango_score(b, c, n, d, sqrt=math.sqrt)
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)

    def solve(level: float, inside: float, outside: float) -> float:
        for _ in range(60):  # halves to below a float's spacing
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(score(middle)) <= level else (inside, middle)
        return inside

    value = (b - c) / n
    return solve(z, value, -1.0), solve(z, value, 1.0)


Counts = tuple[Doubles, Doubles, Doubles]  # images, answers, hits of each class: [draws, C]


def _counts(true: Labels, answered: Labels, weights: Weights, classes: int) -> Counts:
    """Add up the kinds of (true, answered) class [K] with `weights` [draws, K] images each."""
    columns = np.eye(classes)
    hit = true == answered
    return (
        np.asarray(weights @ columns[true]),
        np.asarray(weights @ columns[answered]),
        np.asarray(weights[:, hit] @ columns[true[hit]]),
    )


def _worst_recall(counts: Counts) -> Doubles:
    images, _, hits = counts
    return np.asarray(np.nanmin(_ratio(hits, images), axis=-1))


def _macro_f1(counts: Counts) -> Doubles:
    images, answers, hits = counts
    return np.asarray(np.nanmean(_ratio(2 * hits, images + answers), axis=-1))


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    """Divide, NaN where there is nothing to divide by."""
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0))


def _calibration_error(chances: Doubles, right: Bools) -> float:
    confidence = chances.max(axis=1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # (0, 1/15] is bin 0
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def _redraw(score: Callable[[Weights], Doubles], counts: npt.NDArray[np.int64]) -> Doubles:
    """Redraw the images RESAMPLES times, counts [K] each, and score them: float [RESAMPLES].

    RESAMPLES_AT_ONCE of them lie in memory: with many classes there may be a kind an image.
    """
    n, draw = int(counts.sum()), np.random.default_rng(SEED)
    starts = range(0, RESAMPLES, RESAMPLES_AT_ONCE)
    sizes = [min(RESAMPLES_AT_ONCE, RESAMPLES - start) for start in starts]
    blocks = (draw.multinomial(n, counts / n, size=size).astype(np.float64) for size in sizes)
    return np.concatenate([score(weights) for weights in blocks])


def _percentiles(value: float, drawn: Doubles, n: int) -> Measure:
    low, high = (float(q) for q in np.percentile(drawn, [2.5, 97.5]))
    if high - low < 1e-12:
        return Measure(value=value, unit="1", n=n)
    return Measure(value=value, unit="1", n=n, low=min(low, value), high=max(high, value))
