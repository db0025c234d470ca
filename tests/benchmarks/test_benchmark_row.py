"""A benchmark row holds its own rules: no goal on one measurement, no figure without an origin."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks import benchmark_row, table
from benchmarks.benchmark_row import BenchmarkRow, Origin
from fettle.measure import Measure

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=12)
ORIGINS = st.builds(
    Origin,
    cpu_model=st.none() | TEXTS,
    cpu_flags=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    cores=st.none() | st.integers(1, 512),
    platform=st.none() | TEXTS,
    versions=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
    commit=st.none() | TEXTS,
    date=st.none() | TEXTS,
    command=st.none() | TEXTS,
    recorded_in=st.none() | TEXTS,
)


@st.composite
def rows(draw: st.DrawFn, what: str | None = None) -> BenchmarkRow:
    """Draw a row that the type takes: measured, out of reach, or NOT_MEASURED."""
    name, goal, origin = (
        what or draw(st.text(min_size=1)),
        draw(st.sampled_from(["", ">= 2"])),
        draw(ORIGINS),
    )
    match draw(st.sampled_from(["measured", "out of reach", "not measured"])):
        case "measured":
            low, value, high = sorted(draw(st.tuples(FLOATS, FLOATS, FLOATS)))
            row = benchmark_row.measured(
                name,
                value,
                low=draw(st.sampled_from([None, low])),
                high=draw(st.sampled_from([None, high])),
                unit=draw(TEXTS),
                n=draw(st.integers(1, 10**9)),
                seeds=draw(st.none() | st.lists(st.integers(0, 2**32), max_size=3)),
                goal=goal,
                holds=draw(st.booleans()),
                note=draw(TEXTS),
            )
        case "out of reach":
            n = draw(st.integers(1, 50))
            row = benchmark_row.without_value(name, "s", goal, n=n, seeds=[1], reason="never ended")
        case _:
            row = benchmark_row.not_measured(name, "s", goal, why="no tool")
    return row.at(origin)


def plain(**changes: object) -> BenchmarkRow:
    """Make a row of ten measurements that meets its goal, but for `changes`."""
    fields = {
        "what": "p50", "value": 2.0, "low": 1.0, "high": 3.0, "n": 10, "seeds": (20,),
        "unit": "ms", "goal": "<= 4", "met": True,
    }  # fmt: skip
    return BenchmarkRow.model_validate({**fields, **changes})


@given(st.lists(rows(), unique_by=lambda row: row.what, max_size=4))
def test_what_is_written_is_read_again(found: list[BenchmarkRow]) -> None:
    assert list(table.parse(table.form(found))) == found


@given(rows())
def test_one_measurement_or_none_bears_no_goal(row: BenchmarkRow) -> None:
    if row.n < 2 or not row.goal:
        assert row.met is None
    else:
        assert row.met is not None


@given(rows(), st.booleans())
def test_no_way_of_making_a_row_judges_one_measurement(row: BenchmarkRow, met: bool) -> None:
    assume(row.n < 2)
    with pytest.raises(ValidationError, match="judged from n = 2 up"):
        BenchmarkRow.model_validate({**dict(row), "goal": ">= 2", "met": met})


@given(st.lists(rows(what="p50"), min_size=1, max_size=5))
def test_a_row_that_is_measured_again_keeps_its_earlier_runs_oldest_first(
    runs: list[BenchmarkRow],
) -> None:
    row = runs[0]
    for again in runs[1:]:
        row = again.after(row)
    assert [*row.history, row.model_copy(update={"history": ()})] == runs
    assert table.parse(table.form([row])) == (row,)


def test_a_results_file_keeps_the_other_rows_and_the_earlier_runs(tmp_path: Path) -> None:
    first, second = Origin(cores=1, date="2026-11-26"), Origin(cores=2, date="2026-11-27")
    table.write("x", [plain(), plain(what="p99")], first, quiet=True, folder=tmp_path)
    table.write("x", [plain(value=1.5)], second, quiet=True, folder=tmp_path)
    p50, p99 = table.read(tmp_path / "x.json")
    assert (p50.what, p50.value, p50.origin, p99.origin) == ("p50", 1.5, second, first)
    assert p50.history == (plain().at(first),)
    assert p99.history == ()


def test_one_row_of_a_results_file_is_one_line(tmp_path: Path) -> None:
    written = table.write(
        "x", [plain(), plain(what="p\n99")], Origin(), quiet=True, folder=tmp_path
    )
    assert len(written.read_text().splitlines()) == 2 + 2


BROKEN = {
    "a row without a value gives its reason": {"value": None, "low": None, "high": None},
    "one with a value has none": {"reason": "no tool"},
    "has no low and no high": {"value": None, "reason": "no tool", "met": False},
    "comes of one measurement at least": {"n": 0, "met": None},
    "lies between low and high": {"value": 3.5},
    "judged from n = 2 up": {"n": 1},
    "without a goal, met is None": {"goal": ""},
    "met is true or false": {"met": None},
    "not met without a value": {"value": None, "low": None, "high": None, "reason": "no end"},
    "of the same figure": {"history": (plain(what="p99"),)},
    "has no history of its own": {"history": (plain(history=(plain(),)),)},
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_row_that_breaks_a_rule_cannot_be_made(rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        plain(**BROKEN[rule])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "2.0"])
def test_a_value_is_a_finite_number(value: object) -> None:
    with pytest.raises(ValidationError):
        plain(value=value, low=None, high=None)


def test_a_key_that_no_row_has_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        plain(machine="this one")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (plain(), "met"),
        (plain(met=False), "missed"),
        (plain(n=1, met=None), "not judged: n = 1"),
        (plain(goal="", met=None), ""),
        (benchmark_row.not_measured("p50", "ms", "<= 4", why="no wrk"), "NOT_MEASURED: no wrk"),
    ],
)
def test_the_verdict_is_said(row: BenchmarkRow, said: str) -> None:
    assert row.verdict == said


def test_a_measure_becomes_a_row_with_its_interval_and_seeds() -> None:
    measure = Measure(value=2.0, unit="x", n=200, low=1.5, high=2.5)
    row = benchmark_row.of_measure("gain", measure, seeds=[20], goal="> 1", holds=True)
    assert (row.value, row.low, row.high, row.unit, row.n) == (2.0, 1.5, 2.5, "x", 200)
    assert (row.seeds, row.met) == ((20,), True)


def test_several_times_become_their_median_and_one_is_not_judged() -> None:
    row = benchmark_row.of_times("start", [3.0, 1.0, 2.0], 2)
    assert (row.value, row.low, row.high, row.n, row.met) == (2.0, 1.0, 3.0, 3, True)
    assert benchmark_row.of_times("start", [3.0, 3.0], 2).met is False
    assert benchmark_row.of_times("start", [3.0], 2).verdict == "not judged: n = 1"
