"""Accuracy budget: judged by the upper bound of a paired drop, and forecast on validation.

All figures rest on the discordant pairs of n images: b that only the reference (the float model)
got right, c that only the candidate got right. The drop is (b - c) / n.

The bound. Tango's score test (1998, Statistics in Medicine 17, pp. 891-908) of "the drop is d"
against "it is smaller" rejects when

    b - c - n d <= -z sqrt(n (2 q + d (1 - d)))        z = the normal quantile of `confidence`

with q the maximum-likelihood share of the c-cell under d (see quality.paired_drop). The one-sided
upper bound is the largest d not rejected, so "the bound lies within drop_max" is the same as "the
test rejects drop_max", which is closed-form: `passes`. Without a discordant pair the bound is
z^2 / (n + z^2), not 0. Its exact coverage is in the test.

The predictive probability of passing. The shares of (b, c, the rest) get Jeffreys' prior
Dirichlet(1/2, 1/2, 1/2); after validation's counts, the counts on a test set of n images follow the
Dirichlet-multinomial. `chance` adds up that distribution over the pairs (b, c) that pass. Only the
size of the test set enters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from fettle.evaluation import accuracy_statistics
from fettle.evaluation.accuracy_statistics import Bools, Doubles, Floats, Labels

PRIOR = 0.5  # Jeffreys; together one and a half images
NEGLIGIBLE = 1e-12  # a count of less mass is left out of the sums
# Of a lossless compression 1 to 2 % of the answers flip, half each way (measured on digits).
FLIP_SHARE = 0.015
POWER = 0.8  # the usual one (Cohen 1988): four true wins in five are seen to be wins
EXACT_MAX = 20_000  # images; the normal law is within 1 % of the exact sum there


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """Discordant pairs: images that only the reference, only the candidate got right; out of n."""

    lost: float
    gained: float
    n: int

    @property
    def drop(self) -> float:
        """The accuracy lost: in [-1, 1], positive is worse."""
        return (self.lost - self.gained) / self.n


def pairs(reference_correct: Bools, candidate_correct: Bools) -> PairedCounts:
    """Count the discordant pairs of two models on the same images: bool [n] each."""
    return PairedCounts(
        lost=int((reference_correct & ~candidate_correct).sum()),
        gained=int((~reference_correct & candidate_correct).sum()),
        n=len(reference_correct),
    )


def quantile(confidence: float) -> float:
    """Return the normal quantile of a one-sided bound; confidence in (0, 1)."""
    return NormalDist().inv_cdf(confidence)


def upper_bound(counts: PairedCounts, confidence: float) -> float:
    """Return Tango's one-sided upper bound of the drop at `confidence` in [0.5, 1)."""
    return accuracy_statistics.tango_interval(
        counts.lost, counts.gained, counts.n, z=quantile(confidence)
    )[1]


def drop_bound(
    metric: str, reference: Floats, candidate: Floats, labels: Labels, *, confidence: float
) -> float:
    """Return the one-sided upper bound of the drop in `metric` (logits [n, classes], labels [n]).

    accuracy: Tango's. worst_recall: the largest of the classes' own (`class_confidence`).
    macro_f1: the bootstrap's percentile, but never below what Tango gives for no discordant pair,
    where the bootstrap would say 0. calibration_error has no interval (see quality), so its bound
    is the point itself.
    """
    if metric == "accuracy":
        right = (accuracy_statistics.correct(logits, labels) for logits in (reference, candidate))
        return upper_bound(pairs(*right), confidence)
    if metric == "calibration_error":
        return accuracy_statistics.drop(metric, reference, candidate, labels).value
    if metric == "worst_recall":
        return _worst_class_bound(reference, candidate, labels, confidence)
    drawn = accuracy_statistics.drawn_drops(metric, reference, candidate, labels)
    nothing = upper_bound(PairedCounts(0, 0, len(labels)), confidence)
    return max(float(np.quantile(drawn, confidence)), nothing)


def class_confidence(confidence: float, classes: int) -> float:
    """Return the confidence of each class's bound, so that all of them hold at once (Bonferroni).

    Then no class loses more than the largest bound, and so neither does the worst. The bootstrap of
    the worst recall passed true losses of the whole budget in 14 to 34 % at a nominal 5 %: the
    least of many noisy recalls lies too low on both models, and their difference too near 0.
    """
    return 1 - (1 - confidence) / classes


def _worst_class_bound(
    reference: Floats, candidate: Floats, labels: Labels, confidence: float
) -> float:
    right = [accuracy_statistics.correct(logits, labels) for logits in (reference, candidate)]
    present = np.unique(labels)
    each = class_confidence(confidence, len(present))
    of_class = ([one[labels == label] for one in right] for label in present)
    return max(upper_bound(pairs(*both), each) for both in of_class)


@dataclass(frozen=True, slots=True)
class BudgetJudgement:
    """Budget judgement on n images. "undecided": the drop itself lies within the budget, its
    bound does not; then `n_needed` images would decide it for this drop (None: no set would).
    """

    status: Literal["met", "exceeded", "undecided"]
    bound: float
    n_needed: int | None = None


def judge(
    metric: str,
    reference: Floats,
    candidate: Floats,
    labels: Labels,
    *,
    drop_max: float,
    confidence: float,
) -> BudgetJudgement:
    """Judge the budget: the upper bound of the drop against `drop_max`."""
    bound = drop_bound(metric, reference, candidate, labels, confidence=confidence)
    if bound <= drop_max:
        return BudgetJudgement("met", bound)
    drop = accuracy_statistics.drop(metric, reference, candidate, labels).value
    if drop > drop_max:
        return BudgetJudgement("exceeded", bound)
    counts = pairs(
        *(accuracy_statistics.correct(logits, labels) for logits in (reference, candidate))
    )
    needed = sample_size(
        drop_max,
        confidence=confidence,
        flip_share=max(FLIP_SHARE, (counts.lost + counts.gained) / counts.n),
        drop=max(0.0, drop),
    )
    return BudgetJudgement("undecided", bound, needed)


def passes(
    lost: npt.ArrayLike, gained: npt.ArrayLike, n: int, *, drop_max: float, confidence: float
) -> Bools:
    """Tell for counts of any one shape whether the upper bound lies within `drop_max`."""
    b, c = np.asarray(lost, np.float64), np.asarray(gained, np.float64)
    gap, variance = accuracy_statistics.tango_score(b, c, n, drop_max, sqrt=np.sqrt)
    rejected = gap <= -quantile(confidence) * np.sqrt(np.maximum(0.0, variance))
    # without variance (d = 0 and no discordant pair) nothing is rejected; no drop is above 1
    return np.asarray((rejected & (variance > 0)) | (drop_max >= 1))


def predictive_probability(
    seen: PairedCounts, n: int, *, drop_max: float, confidence: float
) -> float:
    """Predictive probability that `n` fresh images will pass, given `seen` ones.

    `seen.n` 0 is the prior alone.
    """
    prior = (PRIOR + seen.lost, PRIOR + seen.gained, PRIOR + seen.n - seen.lost - seen.gained)
    whole = sum(prior)
    law = _Law(
        cells=[_rising(parameter, n) for parameter in prior],
        others=[_rising(whole - parameter, n) for parameter in prior],
        whole=_rising(whole, n)[n],
    )
    return _over_passing(n, law, drop_max=drop_max, confidence=confidence)


def forecast_passing(
    metric: str,
    reference: Floats,
    candidate: Floats,
    labels: Labels,
    n: int,
    *,
    drop_max: float,
    confidence: float,
) -> float:
    """Forecast the probability that `n` fresh images pass, given logits [v, classes] and labels
    [v].

    accuracy: `chance`. The others: the drop on fresh images is normal around the drop seen, with
    the bootstrap's spread s here and s_n = s sqrt(v / n) there, so that it passes with probability
    Phi((drop_max - drop - z s_n) / sqrt(s^2 + s_n^2)); s is never below one image's worth.
    """
    if metric == "accuracy":
        right = (accuracy_statistics.correct(logits, labels) for logits in (reference, candidate))
        return predictive_probability(pairs(*right), n, drop_max=drop_max, confidence=confidence)
    drop, seen = accuracy_statistics.drop(metric, reference, candidate, labels).value, len(labels)
    if metric == "calibration_error":  # judged by the point itself, see drop_bound
        return float(drop <= drop_max)
    spread = max(
        float(accuracy_statistics.drawn_drops(metric, reference, candidate, labels).std()), 1 / seen
    )
    there = spread * math.sqrt(seen / n)
    gap = drop_max - drop - quantile(confidence) * there
    return NormalDist().cdf(gap / math.hypot(spread, there))


def power_at(
    lost_share: float, gained_share: float, n: int, *, drop_max: float, confidence: float
) -> float:
    """Power: the probability that `n` images pass when the true shares of both cells are known."""
    shares = (lost_share, gained_share, max(0.0, 1 - lost_share - gained_share))
    law = _Law(
        cells=[_powers(share, n) for share in shares],
        others=[_powers(1 - share, n) for share in shares],
        whole=0.0,
    )
    return _over_passing(n, law, drop_max=drop_max, confidence=confidence)


def sample_size(
    drop_max: float,
    *,
    confidence: float,
    flip_share: float = FLIP_SHARE,
    power: float = POWER,
    drop: float = 0.0,
) -> int | None:
    """Sample size: how many test images decide in favour with probability `power`.

    The model's true drop is `drop`; `flip_share` of the answers differ in correctness, at least
    `drop`. None when no test set would: the drop is not below `drop_max`. Exact to the few images
    by which the probability is not monotone (counts are whole) below EXACT_MAX, beyond it

        n = (flips - drop^2) ((z_confidence + z_power) / (drop_max - drop))^2
    """
    if drop >= drop_max:
        return None
    flips = max(flip_share, abs(drop))
    lost, gained = (flips + drop) / 2, (flips - drop) / 2
    spread = (quantile(confidence) + quantile(power)) / (drop_max - drop)
    normal = math.ceil((flips - drop**2) * spread**2)
    if normal > EXACT_MAX:
        return normal

    def enough(n: int) -> bool:
        probability = power_at(lost, gained, n, drop_max=drop_max, confidence=confidence)
        return probability >= power

    high = max(16, normal)
    while not enough(high):
        high = high * 5 // 4
    low = high // 2
    while enough(low) and low > 1:
        low //= 2
    while high - low > max(1, high // 500):  # a fifth of a percent: it is said as "about"
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def min_sample_size(drop_max: float, *, confidence: float) -> int:
    """Minimum sample size, below which no answer passes: not one with every image right in both.

    From z^2 / (n + z^2) <= drop_max; drop_max in (0, 1].
    """
    return math.ceil(quantile(confidence) ** 2 * (1 - drop_max) / drop_max)


def least_decidable_drop(n: int, *, confidence: float) -> float:
    """Return the least budget, in tenths of a point, that a lossless model keeps with POWER."""
    share, low, high = FLIP_SHARE / 2, 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        likely = power_at(share, share, n, drop_max=middle / 1000, confidence=confidence)
        low, high = (low, middle) if likely >= POWER else (middle, high)
    return high / 1000


def noise_warning(n: int, *, drop_max: float, confidence: float) -> str | None:
    """Say, before any training, that `n` test images will hardly decide an accuracy budget; or
    None when a truly lossless model would pass with probability POWER.
    """
    share = FLIP_SHARE / 2
    likely = power_at(share, share, n, drop_max=drop_max, confidence=confidence)
    if likely >= POWER:
        return None
    needed = sample_size(drop_max, confidence=confidence)
    ask = f"about {needed:,} test images" if needed else "a budget above 0"
    return (
        f"compress.budget is below the noise of the test set: with n = {n:,} even a lossless model "
        f"is shown to drop at most {drop_max:g} ({confidence:.0%} bound) with probability "
        f"{likely:.2f}; {POWER:g} needs {ask}. The least drop that n = {n:,} can decide is "
        f"{least_decidable_drop(n, confidence=confidence):g}. Raise ingest.split.test, add data, "
        "or raise compress.budget.drop_max (auto: to that least drop)"
    )


def _rising(start: float, n: int) -> Doubles:
    """Return log(Gamma(start + k) / Gamma(start)) for k = 0..n."""
    return np.concatenate([[0.0], np.cumsum(np.log(start + np.arange(n)))])


def _powers(share: float, n: int) -> Doubles:
    """Return log(share^k) for k = 0..n, with 0^0 = 1."""
    counts = np.arange(n + 1)
    return np.asarray(counts * math.log(share) if share > 0 else np.where(counts, -np.inf, 0.0))


@dataclass(frozen=True, slots=True)
class _Law:
    """A law of the counts (b, c, r) that add up to n: log mass = log(n! / (b! c! r!)) +
    cells[0][b] + cells[1][c] + cells[2][r] - whole. `others[i]` is cells of all but i together.
    Arrays are [n + 1].
    """

    cells: list[Doubles]
    others: list[Doubles]
    whole: float


def _over_passing(n: int, law: _Law, *, drop_max: float, confidence: float) -> float:
    """Add up the mass of the pairs (b, c) whose upper bound lies within `drop_max`."""
    factorial = _rising(1.0, n)
    every = np.arange(n + 1)

    def likely(cell: int) -> npt.NDArray[np.int64]:
        binomial = factorial[n] - factorial - factorial[::-1]
        alone = binomial + law.cells[cell] + law.others[cell][::-1] - law.whole
        return np.asarray(every[alone > math.log(NEGLIGIBLE)])

    b, c = likely(0)[:, None], likely(1)[None, :]
    passing = passes(b, c, n, drop_max=drop_max, confidence=confidence) & (b + c <= n)
    rows, columns = np.nonzero(passing)
    lost, gained = b[rows, 0], c[0, columns]
    rest = n - lost - gained
    mass = factorial[n] - factorial[lost] - factorial[gained] - factorial[rest] - law.whole
    mass += law.cells[0][lost] + law.cells[1][gained] + law.cells[2][rest]
    return float(min(1.0, np.exp(mass).sum()))
