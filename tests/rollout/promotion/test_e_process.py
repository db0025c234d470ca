from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.rollout.promotion import drift, one_sample_test, srm, two_sample_test
from fettle.rollout.promotion import e_process as e

shares = st.floats(0.001, 0.999)


@given(w=shares, p=st.floats(0.0, 1.0), better=st.floats(0.0, 1.0))
@settings(max_examples=200, deadline=None)
def test_a_bet_on_the_origin_gains_nothing_while_the_challenger_is_not_worse(
    w: float, p: float, better: float
) -> None:
    """The mean of the wealth after one request, worked out, for every bet."""
    p_c = p * better
    gains = [np.exp(e.origin(e.WORSE, np.array([w]), np.array([arm]))[0]) for arm in (True, False)]
    bad = w * p_c * gains[0] + (1 - w) * p * gains[1]
    assert (bad + 1 - w * p_c - (1 - w) * p <= 1 + 1e-12).all()


@given(w=shares, p=st.floats(0.0, 0.9), margin=st.floats(0.001, 0.1), more=st.floats(0.0, 1.0))
@settings(max_examples=200, deadline=None)
def test_a_stake_on_the_excess_gains_nothing_while_it_is_at_the_margin_or_beyond(
    w: float, p: float, margin: float, more: float
) -> None:
    p_c = min(1.0, p + margin + more * (1 - p - margin))
    odds = w / (1 - w)

    def grown(d: float) -> np.ndarray:
        wealth = e.excess(np.array([w * margin]), np.array([d]), np.array([d * d]))
        return np.exp(wealth - e.EQUAL_PRIOR)[0]

    quiet = 1 - w * p_c - (1 - w) * p
    mean = w * p_c * grown(1.0) + (1 - w) * p * grown(-odds) + quiet * grown(0.0)
    assert (mean <= 1 + 1e-12).all()


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_request_that_was_not_drawn_tells_nothing(chance: float) -> None:
    gain = e.origin(e.WORSE, np.array([chance]), np.array([chance == 1.0]))
    assert np.abs(gain).max() < 1e-12


def test_with_no_error_on_either_arm_the_bound_is_absolute() -> None:
    """ln(100 · 4) / (0.95 · 0.01) = 631 challenger requests prove "under one point"."""
    state = two_sample_test.start()
    needed = 0
    while not state.passed[0]:
        two_sample_test.update(
            state,
            np.array([needed % 2 == 0]),
            np.array([False]),
            propensity=np.array([0.5]),
            margin=0.01,
            log_fail=9.0,
        )
        two_sample_test.look(state, log_pass=np.log(100))
        needed += 1
    assert 600 < state.n[0, 1] <= 631


def test_it_agrees_with_the_public_library_ville_on_a_proportion() -> None:
    ville = pytest.importorskip("ville", reason="needs ville (pip install fettle-mlops[dev])")
    rng = np.random.default_rng(7)
    p0, x = 0.3, rng.random(400) < 0.42
    # a uniform prior on the share, as ville's, but as many bets on the odds ratio
    share = (np.arange(4000) + 0.5) / 4000
    odds = share / (1 - share) * (1 - p0) / p0
    wealth = np.cumsum([e.origin(odds, np.array([p0]), np.array([hit]))[0] for hit in x], axis=0)
    ours = e.log_e(wealth - np.log(len(share)))
    theirs = np.log(ville.BernoulliTest(p0).fit(x.astype(float)).e_values_)
    assert np.abs(ours - theirs).max() < 0.01
    assert theirs[-1] > 2


def test_it_agrees_with_ville_on_when_a_challenger_is_within_the_margin() -> None:
    """ville bets adaptively on the same bounded difference: neither may need far more than it."""
    ville = pytest.importorskip("ville", reason="needs ville (pip install fettle-mlops[dev])")
    rng = np.random.default_rng(3)
    n, w, margin = 20_000, 0.5, 0.01
    arm, bad = rng.random(n) < w, rng.random(n) < 0.01
    d = np.where(bad, np.where(arm, 1.0, -1.0), 0.0)
    steps = np.arange(1, n + 1)
    ours = e.log_e(e.excess(steps * w * margin, np.cumsum(d), np.cumsum(d * d)))
    test = ville.BettingTest(w * margin, bounds=(-1, 1), alternative="less").fit(d)
    first = int(np.argmax(ours >= np.log(100)))
    theirs = int(np.argmax(np.log(test.e_values_) >= np.log(100)))
    assert first > 0
    assert theirs > 0
    assert 0.4 < first / theirs < 1.6


def test_a_split_off_by_half_raises_the_alarm_and_a_right_one_does_not() -> None:
    rng = np.random.default_rng(5)
    rows = 200
    right, wrong = srm.start(rows), srm.start(rows)
    everywhere, told = np.ones(rows, bool), np.full(rows, 0.1)
    for _ in range(3000):
        draw = rng.random(rows)
        srm.update(right, draw < 0.1, propensity=told, counts=everywhere)
        srm.update(wrong, draw < 0.15, propensity=told, counts=everywhere)
    assert right.alarm.sum() == 0
    assert wrong.alarm.all()


def test_drift_beyond_the_tolerance_is_seen_and_within_it_is_not() -> None:
    from fettle.rollout.promotion.request_records import Arm

    rng = np.random.default_rng(5)
    state = drift.start((0.25, 0.25, 0.25, 0.25), 0.1)
    for _ in range(1000):
        drift.update(state, Arm.CHAMPION, int(rng.choice(4, p=[0.32, 0.2, 0.24, 0.24])))
        drift.update(state, Arm.CHALLENGER, int(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])))
    assert state.alarm == {Arm.CHAMPION: False, Arm.CHALLENGER: True}


def test_a_share_above_its_limit_fails_and_one_below_passes() -> None:
    rng = np.random.default_rng(8)
    state = one_sample_test.start(2)
    limit, everywhere = np.array([0.05, 0.05]), np.array([True, True])
    for _ in range(3000):
        event = rng.random(2) < (0.1, 0.02)
        one_sample_test.update(state, event, limit=limit, counts=everywhere, log_fail=np.log(1000))
        one_sample_test.look(state, log_pass=np.log(100))
    assert state.failed.tolist() == [True, False]
    assert state.passed.tolist() == [False, True]
