from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fettle.measure import Measure

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(finite, finite, finite, st.integers(1, 10**9))
def test_a_measure_survives_json_and_never_leaves_its_interval(
    a: float, b: float, c: float, n: int
) -> None:
    low, value, high = sorted((a, b, c))
    measure = Measure(value=value, unit="ms", n=n, low=low, high=high)
    assert Measure.from_dict(measure.to_dict()) == measure


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": 1.0, "unit": "", "n": 1}, "needs a unit"),
        ({"value": 1.0, "unit": "ms", "n": 0}, "needs n >= 1"),
        ({"value": math.nan, "unit": "ms", "n": 1}, "must be finite"),
        ({"value": 1.0, "unit": "ms", "n": 1, "low": 0.0}, "both ends or none"),
        ({"value": 3.0, "unit": "ms", "n": 1, "low": 0.0, "high": 1.0}, "outside its interval"),
    ],
)
def test_a_metric_without_unit_count_or_sense_cannot_be_built(
    fields: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Measure(**fields)  # type: ignore[arg-type]  # wrong on purpose
