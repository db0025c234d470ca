"""Number formatting for people: rounding happens here and nowhere else."""

from __future__ import annotations

from datetime import datetime

from fettle.measure import Measure

NOT_MEASURED = "not measured"
DASH = "–"  # noqa: RUF001  an en dash is the typographic mark for "no value"


def metric(name: str) -> str:
    """Return a metric's name for people: macro_f1 → "macro F1"."""
    return name.replace("_", " ").replace(" f1", " F1")


def count(value: float) -> str:
    """Return a whole number with thousands separated: 13,452."""
    return f"{value:,.0f}"


def percent(fraction: float) -> str:
    """Return a fraction as per cent, one decimal: 0.9834 → "98.3 %"; exactly one is "100 %"."""
    return f"{percent_bare(fraction)} %"


def percent_bare(fraction: float) -> str:
    """Return per cent without its sign; an exact 100 or 0 needs no decimal."""
    return f"{100 * fraction:.0f}" if fraction in (0, 1) else f"{100 * fraction:.1f}"


def percent_interval(measure: Measure | None) -> str:
    """Return "99.4 [98.1, 99.8]", per cent; a dash when not measured."""
    if measure is None:
        return DASH
    if measure.low is None or measure.high is None:
        return percent_bare(measure.value)
    low, high = percent_bare(measure.low), percent_bare(measure.high)
    return f"{percent_bare(measure.value)} [{low}, {high}]"


def points_interval(measure: Measure | None) -> str:
    """Return a difference of fractions in points with its sign: "+0.4 [-0.2, +1.0]"."""
    if measure is None:
        return DASH
    if measure.low is None or measure.high is None:
        return _points(measure.value)
    return f"{_points(measure.value)} [{_points(measure.low)}, {_points(measure.high)}]"


def _points(fraction: float) -> str:
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def ratio(value: float) -> str:
    """Return a ratio with three digits: 0.52, 4.21, 12.3, 123."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def times(measure: Measure | None) -> str:
    """Return a ratio as "9.61x"; a dash when not measured."""
    return f"{ratio(measure.value)}x" if measure else DASH


def times_interval(measure: Measure | None) -> str:
    """Return "4.21 [4.10, 4.33]"; a dash when not measured."""
    if measure is None:
        return DASH
    if measure.low is None or measure.high is None:
        return ratio(measure.value)
    return f"{ratio(measure.value)} [{ratio(measure.low)}, {ratio(measure.high)}]"


def milliseconds(value: float) -> str:
    """Return a time in ms with three digits: 0.123, 4.56, 78.9, 1,234."""
    if value < 0.9995:
        return f"{value:.3f}"
    return ratio(value)


def seconds(value: float) -> str:
    """Return a duration: "< 0.1 s", "0.4 s", "12 s", "3 min 05 s", "1 h 02 min"."""
    if value < 0.05:
        return "< 0.1 s"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value_bytes: float) -> str:
    """Return a size in decimal units with three digits: "812 B", "13.5 kB", "4.62 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if value_bytes < 999.5 or unit == "GB":
            return f"{value_bytes:.0f} B" if unit == "B" else f"{_three(value_bytes)} {unit}"
        value_bytes /= 1000
    raise AssertionError("the last unit always returns")


def size_tick(value_bytes: float) -> str:
    """Return a round size for an axis: "10 kB", "1 MB"."""
    for unit in ("B", "kB", "MB"):
        if value_bytes < 999.5:
            return f"{value_bytes:g} {unit}"
        value_bytes /= 1000
    return f"{value_bytes:g} GB"


def moment(iso: str) -> str:
    """Return an ISO time for people, "2026-11-23 04:00 UTC"; any other text as it is."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = when.tzname() or ""
    return f"{when:%Y-%m-%d %H:%M} {zone}".rstrip()


def _three(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
