"""Cluster-robust test (few-spans t-test): is the challenger's rate above the champion's by more?

The step is cut into blocks of requests. In each the rate of one arm minus that of the other is
taken: what both arms share (a burst, the hour, a busy machine) cancels in it, whatever it is. What
one arm does by itself (a stall, a burst of errors) does not, and makes neighbouring differences
alike. So the blocks are put together into a few spans, each several times as long as the
differences stay alike, and the spans' differences are taken as a handful of independent figures,
normal but of unequal variance: the t-test on them keeps its level at 8 % and below (Ibragimov and
Müller 2010, "t-statistic based correlation and heterogeneity robust inference"). Where fewer than
SPANS_LEAST spans are long enough there is no verdict: a cluster as long as the test is beyond any
method. The number of looks is small and fixed, and shares the error (Bonferroni).

How long differences stay alike: their first autocorrelation r, as of an AR(1), is gone by half
after -log 2/log r blocks; a span has SPAN_TIMES / -log r blocks or more.
"""

from __future__ import annotations

import numpy as np

from fettle.rollout.promotion import student_t
from fettle.rollout.promotion.e_process import Bools, Floats

SPANS_MOST, SPANS_LEAST = 20, 4
SPANS_WIDE = 10
# A roll-back is for good, and waits for more spans: with 4 own stalls over 500 requests rolled back
# 3 of 400 equal challengers, at the looks where a step is young (`make sim-canary`).
SPANS_TO_FAIL = 8
# Of 5, 7 and 9, simulated on latencies of each arm's own, correlated over 130 to 4,000 requests of
# 13,520: a level of 0.45 % became 1.3 to 2.8 % with 5, 0.5 to 1.6 % with 7, 0.3 to 1 % with 9,
# where independent requests pass in 98.9, 98.5 and 97.8 %.
SPAN_TIMES = 8.0


def spans(differences: Floats) -> Floats:
    """Return into how many spans the blocks' differences [n, blocks] may be cut, [n]; 0: none."""
    blocks = differences.shape[1]
    off = differences - differences.mean(axis=1, keepdims=True)
    power = (off * off).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = np.where(power > 0, (off[:, 1:] * off[:, :-1]).sum(axis=1) / power, 0.0)
        # the estimate is too small by about (1 + 3r)/blocks (Marriott and Pope 1954)
        alike = np.clip(alike + (1 + 3 * alike) / blocks, 1e-6, 0.999)
        count = np.floor(blocks * -np.log(alike) / SPAN_TIMES)
    count = np.minimum(count, min(SPANS_MOST, blocks))
    found: Floats = np.where(count >= SPANS_LEAST, count, 0.0)
    return found


def excess(
    bad: tuple[Floats, Floats],
    n: tuple[Floats, Floats],
    margin: Floats,
    alpha: float,
    least: int = SPANS_LEAST,
    *,
    wide: bool = False,
) -> tuple[Floats, Floats]:
    """Return t of "the challenger's rate minus the champion's, minus the margin", and its bar.

    bad, n: champion's and challenger's counts, [n, blocks] each; margin: [n]. The bar is infinite
    where there is no verdict, for want of `least` spans. No standard error is taken below that of
    independent requests. wide: a step that only lets in more traffic does not ask how long its few
    blocks stay alike, which they could not tell.
    """
    blocks = n[0].shape[1]
    if wide:
        count = np.full(len(margin), float(min(SPANS_WIDE, blocks)))
    else:
        count = spans(_differences(bad, n))
    t, bar = np.zeros(len(count)), np.full(len(count), np.inf)
    floor = sum(
        (b.sum(axis=1) + 1) / np.maximum(m.sum(axis=1), 1) ** 2 for b, m in zip(bad, n, strict=True)
    )
    for many in range(least, SPANS_MOST + 1):
        at = np.flatnonzero(count == many)
        if not at.size:
            continue
        edges = np.arange(many) * blocks // many
        cut = [[np.add.reduceat(one[at], edges, axis=1) for one in both] for both in (bad, n)]
        whole = np.all((cut[1][0] > 0) & (cut[1][1] > 0), axis=1)
        of_span = _differences((cut[0][0], cut[0][1]), (cut[1][0], cut[1][1]))
        mean = of_span.mean(axis=1) - margin[at]
        variance = np.maximum(of_span.var(axis=1, ddof=1) / many, floor[at])
        t[at] = mean / np.sqrt(variance)
        bar[at] = np.where(whole, student_t.critical(many - 1, alpha), np.inf)
    return t, bar


def below(t: Floats, bar: Floats) -> Bools:
    """Say where the challenger is proved to lie under the margin."""
    proved: Bools = t <= -bar
    return proved


def above(t: Floats, bar: Floats) -> Bools:
    """Say where the challenger is proved to lie above the margin."""
    proved: Bools = t >= bar
    return proved


def _differences(bad: tuple[Floats, Floats], n: tuple[Floats, Floats]) -> Floats:
    rates = [b / np.maximum(m, 1.0) for b, m in zip(bad, n, strict=True)]
    found: Floats = np.where((n[0] > 0) & (n[1] > 0), rates[1] - rates[0], 0.0)
    return found
