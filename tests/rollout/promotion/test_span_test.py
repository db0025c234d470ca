"""The few-spans t-test keeps its level where one arm's requests come in clusters of its own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fettle.rollout.promotion import span_test, student_t
from fettle.rollout.promotion.e_process import Floats

BLOCKS, PER_BLOCK = 52, 130  # of each arm: the first look of the default plan
ROWS = 2000
ALPHA = 0.05
NONE = np.zeros(ROWS)


def verdicts(
    rate_b: Floats, rate_c: Floats, rng: np.random.Generator, margin: float = 0.0
) -> tuple[float, float]:
    """Draw both arms at these rates, [rows, blocks]; return the shares proved below and above."""
    bad = (rng.binomial(PER_BLOCK, rate_b) * 1.0, rng.binomial(PER_BLOCK, rate_c) * 1.0)
    n = (np.full(rate_b.shape, float(PER_BLOCK)),) * 2
    t, bar = span_test.excess(bad, n, NONE + margin, ALPHA)
    return float(span_test.below(t, bar).mean()), float(span_test.above(t, bar).mean())


def wandering(rng: np.random.Generator, blocks: float) -> Floats:
    """A rate about 5 % that is correlated over so many blocks."""
    rho = np.exp(-1 / blocks)
    x = rng.standard_normal((ROWS, 1))
    steps = [x]
    for _ in range(BLOCKS - 1):
        x = rho * x + np.sqrt(1 - rho * rho) * rng.standard_normal((ROWS, 1))
        steps.append(x)
    return np.asarray(stats.norm.sf(1.645 - 0.6 * np.concatenate(steps, axis=1)))


@pytest.mark.parametrize("degrees", range(1, 12))
@pytest.mark.parametrize("alpha", [0.2, 0.01, 1e-5])
def test_critical_values_are_those_of_student(degrees: int, alpha: float) -> None:
    assert student_t.critical(degrees, alpha) == pytest.approx(
        stats.t.isf(alpha, degrees), rel=1e-6
    )


def test_independent_requests_keep_the_level_and_show_a_difference() -> None:
    rng = np.random.default_rng(1)
    flat = np.full((ROWS, BLOCKS), 0.01)
    below, above = verdicts(flat, flat, rng)
    assert max(below, above) <= ALPHA * 1.2
    assert verdicts(flat, flat, rng, margin=0.01)[0] > 0.95
    assert verdicts(flat, flat + 0.01, rng)[1] > 0.95


def test_what_both_arms_share_cancels() -> None:
    rng = np.random.default_rng(2)
    shared = wandering(rng, 3.0)
    below, above = verdicts(shared, shared, rng)
    assert max(below, above) <= ALPHA * 1.2
    assert verdicts(shared, shared, rng, margin=0.03)[0] > 0.95


@pytest.mark.parametrize("blocks", [0.5, 2.0, 4.0, 8.0, 16.0])
def test_stalls_of_each_arm_alone_do_not_break_the_level(blocks: float) -> None:
    """Up to 16 blocks of 52: correlated over 4,000 requests of 13,500."""
    rng = np.random.default_rng(3)
    below, above = verdicts(wandering(rng, blocks), wandering(rng, blocks), rng)
    assert max(below, above) <= ALPHA * 1.5


def test_a_single_long_stall_is_no_verdict() -> None:
    rng = np.random.default_rng(4)
    flat = np.full((ROWS, BLOCKS), 0.05)
    stalled = flat.copy()
    stalled[:, 20:28] = 0.9
    assert verdicts(flat, stalled, rng)[1] <= 0.01


def test_with_no_error_on_either_arm_the_margin_is_proved_by_their_number_alone() -> None:
    zero = np.zeros((1, BLOCKS))
    for per_block, proved in ((130.0, True), (5.0, False)):
        n = np.full((1, BLOCKS), per_block)
        t, bar = span_test.excess((zero, zero), (n, n), np.array([0.01]), 0.01)
        assert bool(span_test.below(t, bar)[0]) is proved


def test_too_few_spans_give_no_verdict() -> None:
    ramp = np.linspace(0, 1, BLOCKS)[None] * np.ones((1, BLOCKS))
    assert span_test.spans(ramp).tolist() == [0.0]
    assert span_test.spans(np.random.default_rng(5).random((1, BLOCKS))).tolist() == [20.0]
