"""docs/benchmarks.md says what benchmarks/results/ holds, and no more."""

from __future__ import annotations

import pytest

from benchmarks import benchmark_row, page
from benchmarks.benchmark_row import Origin

MINE = Origin(
    cpu_model="Zen",
    cores=2,
    cpu_flags=("avx2", "fma"),
    platform="Linux x86_64",
    versions={"python": "3.11.7", "torch": "2.13"},
    commit="0123456789abcdef-dirty",
    date="2026-11-27T10:00:00+00:00",
)
OLD = Origin(cpu_model="Zen", date="2026-11-24", recorded_in="fedcba9876543210")
ROW = benchmark_row.measured(
    "a|b", 2.0, high=3.0, unit="x", n=1200, seeds=(), goal=">= 3", holds=False, note="tried"
).at(MINE)


def test_the_page_is_made_from_the_committed_results() -> None:
    assert page.PAGE.read_text() == page.text(), "run `make bench-page`"


def test_a_missed_goal_is_said() -> None:
    found = page.line(ROW)
    when = "2026-11-27 (0123456-dirty)"
    assert found == f"| a/b | 2 |  | 3 | x | 1,200 | >= 3 | **missed** | {when} | tried |"


def test_one_measurement_is_not_judged() -> None:
    found = page.line(benchmark_row.of_times("start", [1.5], 2).at(OLD))
    said = "not judged: n = 1 | by 2026-11-24 (fedcba9) |  |"
    assert found == f"| start | 1.5 | 1.5 | 1.5 | s | 1 | <= 2 | {said}"


def test_what_was_not_measured_says_why() -> None:
    row = benchmark_row.not_measured("p99", "ms", "<= 4", why="wrk is not installed")
    assert page.line(row) == (
        "| p99 |  |  |  | ms | 0 | <= 4 | NOT_MEASURED | day not recorded | wrk is not installed |"
    )


def test_a_row_that_was_measured_again_says_what_it_was() -> None:
    again = ROW.after(ROW.at(OLD)).after(ROW.at(OLD))
    assert page.before(again) == "before: 2, n = 1,200, by 2026-11-24 (fedcba9), and 1 more"
    assert page.line(again).endswith(f"| tried; {page.before(again)} |")


def test_rows_stand_under_their_own_machine() -> None:
    found = page.section("Serving", [ROW, ROW.at(OLD)])
    assert (
        "### Zen, 2 cores, Linux x86_64\n\nPython 3.11.7, torch 2.13, CPU flags avx2 fma.\n"
        in found
    )
    assert "### Zen, cores not recorded\n\nversions not recorded.\n" in found
    assert "###" not in page.section("Serving", [ROW])


@pytest.mark.parametrize("name", page.SUBJECTS)
def test_every_results_file_has_its_rows_in_the_page(name: str) -> None:
    assert (page.RESULTS / f"{name}.json").is_file()
    assert page.SUBJECTS[name] in page.PAGE.read_text()
