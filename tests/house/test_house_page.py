"""docs/benchmarks.md says what benchmarks/results/ holds, and no more."""

from __future__ import annotations

import pytest

from benchmarks import page


def test_the_page_is_made_from_the_committed_results() -> None:
    assert page.PAGE.read_text() == page.text(), "run `make bench-page`"


def test_a_missed_goal_is_said() -> None:
    row = {"what": "a|b", "value": 2.0, "low": None, "high": 3.0, "unit": "x", "n": 1200}
    found = page.line({**row, "goal": ">= 3", "met": False, "note": "tried"})
    assert found == "| a/b | 2 |  | 3 | x | 1,200 | >= 3 | **missed** | tried |"


@pytest.mark.parametrize("name", page.SUBJECTS)
def test_every_results_file_has_its_rows_in_the_page(name: str) -> None:
    assert (page.RESULTS / f"{name}.json").is_file()
    assert page.SUBJECTS[name] in page.PAGE.read_text()
