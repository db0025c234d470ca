from __future__ import annotations

import pytest

from fettle.evaluation import accuracy_budget


@pytest.mark.parametrize("n", [40, 133, 372, 899, 4000])
def test_the_least_drop_is_kept_by_a_lossless_model_and_a_tenth_of_a_point_less_is_not(
    n: int,
) -> None:
    least = accuracy_budget.least_decidable_drop(n, confidence=0.95)
    share = accuracy_budget.FLIP_SHARE / 2

    def kept(drop_max: float) -> float:
        return accuracy_budget.power_at(share, share, n, drop_max=drop_max, confidence=0.95)

    assert kept(least) >= accuracy_budget.POWER > kept(least - 0.001)
    assert accuracy_budget.noise_warning(n, drop_max=least, confidence=0.95) is None


def test_a_budget_below_the_noise_is_told_the_least_that_its_test_set_can_decide() -> None:
    text = accuracy_budget.noise_warning(372, drop_max=0.01, confidence=0.95)
    least = accuracy_budget.least_decidable_drop(372, confidence=0.95)
    assert least == 0.02
    assert f"The least drop that n = 372 can decide is {least:g}. Raise ingest.split.test" in str(
        text
    )
