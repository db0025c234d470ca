"""Hold how numbers are printed: rounding happens here only."""

from __future__ import annotations

import pytest

from fettle.measure import Measure
from fettle.report import number_format


def m(value: float, low: float | None = None, high: float | None = None) -> Measure:
    return Measure(value=value, unit="1", n=10, low=low, high=high)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.98345, "98.3 %"), (1.0, "100 %"), (0.9996, "100.0 %"), (0.0, "0 %"), (0.001, "0.1 %")],
)
def test_a_fraction_is_printed_as_per_cent(value: float, said: str) -> None:
    assert number_format.percent(value) == said


def test_intervals_follow_their_value() -> None:
    assert number_format.percent_interval(m(0.994, 0.981, 1.0)) == "99.4 [98.1, 100]"
    assert number_format.percent_interval(m(0.994)) == "99.4"
    assert number_format.percent_interval(None) == number_format.DASH
    assert number_format.times_interval(m(4.214, 4.1, 12.34)) == "4.21 [4.10, 12.3]"
    assert number_format.times(m(9.61)) == "9.61x"


def test_a_difference_has_its_sign_and_no_minus_nought() -> None:
    assert number_format.points_interval(m(0.004, -0.002, 0.01)) == "+0.4 [-0.2, +1.0]"
    assert number_format.points_interval(m(-0.0001)) == "0.0"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.123456, "0.123"), (0.9999, "1.00"), (4.5678, "4.57"), (9.999, "10.0"), (1234.5, "1,234")],
)
def test_milliseconds_keep_three_digits(value: float, said: str) -> None:
    assert number_format.milliseconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.04, "< 0.1 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_durations_read_like_a_clock(value: float, said: str) -> None:
    assert number_format.seconds(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(812, "812 B"), (13_480, "13.5 kB"), (999_700, "1.00 MB"), (4_620_000_000, "4.62 GB")],
)
def test_sizes_keep_three_digits(value: float, said: str) -> None:
    assert number_format.size(value) == said


def test_a_moment_is_printed_for_people_and_other_text_left_alone() -> None:
    assert number_format.moment("2026-11-23T04:00:00+00:00") == "2026-11-23 04:00 UTC"
    assert number_format.moment("yesterday") == "yesterday"
