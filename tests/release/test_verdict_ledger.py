"""The ledger of verdicts: which looks count, what they are worth, and that none is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from fettle.errors import ProjectError
from fettle.facts.verdict_facts import RowsLedger
from fettle.release import release_gate, verdict_ledger
from fettle.release.verdict_ledger import LedgerLine

ROWS = verdict_ledger.digest_rows(["a" * 64, "b" * 64])


def line(model: str, *, bounds: str = "x", rows: str = ROWS) -> LedgerLine:
    return LedgerLine(kind="verdict", rows=rows, images=2, model=model, bounds=bounds)


def test_the_images_are_told_by_their_content_whatever_they_are_called() -> None:
    assert verdict_ledger.digest_rows(["b" * 64, "a" * 64]) == ROWS
    assert verdict_ledger.digest_rows(["a" * 64]) != ROWS


def test_each_file_by_each_bounds_counts_once(tmp_path: Path) -> None:
    file = tmp_path / verdict_ledger.NAME
    for one in (line("m"), line("m"), line("n"), line("m", bounds="y"), line("m", rows="other")):
        verdict_ledger.append(file, one)
    lines = verdict_ledger.read(file)
    assert len(lines) == 4
    assert verdict_ledger.count(lines, ROWS) == RowsLedger(rows=ROWS, verdicts=3, models=2)


def test_a_line_that_a_merge_or_a_hand_left_twice_counts_once_and_a_missing_end_is_mended(
    tmp_path: Path,
) -> None:
    file = tmp_path / verdict_ledger.NAME
    verdict_ledger.append(file, line("m"))
    file.write_text(f"{file.read_text()}{file.read_text().rstrip()}")
    verdict_ledger.append(file, line("n"))
    assert verdict_ledger.count(verdict_ledger.read(file), ROWS).verdicts == 2


def test_a_ledger_that_cannot_be_read_is_refused_not_forgotten(tmp_path: Path) -> None:
    file = tmp_path / verdict_ledger.NAME
    verdict_ledger.append(file, line("m"))
    file.write_text(f"{file.read_text()}<<<<<<< HEAD\n")
    with pytest.raises(ProjectError) as caught:
        verdict_ledger.read(file)
    text = str(caught.value)
    assert text.startswith("verdicts.jsonl cannot be read: got line 2: ")
    assert text.endswith(
        "it says, a line of JSON each, how often the test images have judged. Fix: take it back "
        "from git, or mend that line; of a merge keep the lines of both sides."
    )


def test_the_first_verdict_is_worth_what_it_says_and_later_ones_together_less() -> None:
    def said(verdicts: int, models: int) -> list[str]:
        ledger = RowsLedger(rows=ROWS, verdicts=verdicts, models=models)
        return release_gate.warn_of_looks(ledger, 0.95, 1512)

    assert said(1, 1) == []
    assert release_gate.warn_of_looks(None, 0.95, 1512) == []
    assert said(3, 2) == [
        "warning: these 1,512 test images have judged 3 times (2 files), each bound at 95%; the 3 "
        "hold together with 85% at least (union bound). New test images would judge this one alone"
    ]
    assert "the 20 need not hold together at all (union bound)" in said(20, 20)[0]


def test_it_lies_beside_params_yaml_for_a_workspace_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FETTLE_ROOT", raising=False)
    assert verdict_ledger.place(tmp_path / "ws") == tmp_path / "ws" / "verdicts.jsonl"
    monkeypatch.setenv("FETTLE_ROOT", str(tmp_path))
    assert verdict_ledger.place(tmp_path / "ws") == tmp_path / "verdicts.jsonl"
