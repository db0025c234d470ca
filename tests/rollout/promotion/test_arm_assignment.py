from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fettle.rollout.promotion.arm_assignment import Assignment


def test_a_request_drawn_anew_has_the_weight_as_its_chance() -> None:
    drawn = Assignment()
    drawn.learn(None, 0.05, challenger=True)
    assert drawn.propensity(None, 0.25) == 0.25


def test_a_user_is_drawn_once_at_a_weight_and_again_only_when_it_rises() -> None:
    drawn = Assignment()
    assert drawn.propensity("ann", 0.05) == 0.05
    drawn.learn("ann", 0.05, challenger=False)
    assert drawn.propensity("ann", 0.05) == 0.0
    assert abs(drawn.propensity("ann", 0.25) - 0.2 / 0.95) < 1e-12
    drawn.learn("bob", 0.05, challenger=True)
    assert drawn.propensity("bob", 0.25) == 1.0
    assert abs(drawn.propensity("bob", 0.01) - 0.2) < 1e-12


@given(st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.25, 0.5, 1.0]), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_the_chances_are_those_of_a_hash_whatever_the_weights(weights: list[float]) -> None:
    """Over many users, each chance predicts as many challengers as come."""
    rng = np.random.default_rng(1)
    drawn, hits, expected, variance = Assignment(), 0, 0.0, 0.0
    for user, hash_ in enumerate(rng.random(2000)):
        for weight in weights:
            challenger = bool(hash_ < weight)
            chance = drawn.propensity(str(user), weight)
            assert challenger if chance == 1.0 else True
            assert not challenger if chance == 0.0 else True
            hits, expected = hits + challenger, expected + chance
            variance += chance * (1 - chance)
            drawn.learn(str(user), weight, challenger=challenger)
    assert abs(hits - expected) <= 5 * np.sqrt(variance) + 1e-9
