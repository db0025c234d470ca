from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import forged_release as forged
import numpy as np
import pytest
from forged_release import columns
from published_release import PublishedRelease

from fettle.cli import compare as command
from fettle.cli import report
from fettle.errors import TamperedError, UserError
from fettle.evaluation import accuracy_statistics
from fettle.release import release_comparison

TEST = "evidence/test_answers.parquet"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[PublishedRelease, Path, Path]:
    """A project, its release, and one of another target with five answers changed."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    made = PublishedRelease(tmp_path_factory.mktemp("published"))
    other = forged.copied(made.folder, tmp_path_factory.mktemp("other"))

    def change(table: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for index in range(5):  # these are right in the first
            table["shipped.predicted"][index] = "left" if index % 3 else "middle"
        return table

    columns(TEST, change)(other)
    forged.seal(other)
    other = forged.sign(other)
    patch.undo()
    return made, made.folder, other


def test_quality_is_paired_row_by_row(both: tuple[PublishedRelease, Path, Path]) -> None:
    _, before, after = both
    made = release_comparison.compare(before, after)
    assert (made.rows, made.unpaired) == (90, 0)
    right = [side.answers.models["shipped"].argmax(axis=1) for side in (made.before, made.after)]
    first, second = (one == made.before.answers.labels for one in right)
    assert first[:5].all()
    assert second[:5].sum() == 0
    assert made.measures["accuracy_drop"] == accuracy_statistics.paired_drop(first, second)
    assert made.measures["float_accuracy"].value == np.mean(first)
    assert [flip.kind for flip in made.flipped] == ["lost"] * 5
    assert made.flipped[0].row == "test-000"
    assert (made.flipped[1].label, made.flipped[1].after) == ("middle", "left")


def test_rows_that_only_one_has_are_left_out_and_counted(
    both: tuple[PublishedRelease, Path, Path], tmp_path: Path
) -> None:
    _, before, after = both
    fewer = forged.copied(after, tmp_path)
    columns(TEST, lambda table: {name: values[3:][::-1] for name, values in table.items()})(fewer)
    made = release_comparison.compare(before, fewer)
    assert (made.rows, made.unpaired) == (87, 3)
    assert [flip.row for flip in made.flipped] == ["test-003", "test-004"]
    columns(TEST, lambda table: {**table, "row": [f"x{i}" for i in range(len(table["row"]))]})(
        fewer
    )
    with pytest.raises(UserError) as caught:
        release_comparison.compare(before, fewer)
    assert "share no test row: got 90 and 87 rows" in str(caught.value)


def test_a_row_with_another_label_is_no_pair(
    both: tuple[PublishedRelease, Path, Path], tmp_path: Path
) -> None:
    _, before, after = both
    other = forged.copied(after, tmp_path)
    columns(TEST, lambda table: {**table, "label": ["right", *table["label"][1:]]})(other)
    made = release_comparison.compare(before, other)
    assert (made.rows, made.unpaired) == (89, 2)


def test_it_is_read_as_text_markdown_and_json(
    both: tuple[PublishedRelease, Path, Path], capsys: Any
) -> None:
    published, before, after = both
    command.compare(str(before), str(after))
    text = capsys.readouterr().out
    assert text.startswith(
        f"tiny:{after.name} is less accurate than {published.tag}: 5 answers of 90 changed\n"
    )
    assert "x86_ort_fp32 (ships before and after)" in text
    assert "\n  test-001  middle  middle  left    lost\n" in text
    command.compare(str(before), str(after), markdown=True)
    shown = capsys.readouterr().out
    assert "| quality on test, % | before | after | drop, points | n |" in shown
    assert "<details><summary>5 flipped answers</summary>" in shown
    command.compare(str(before), str(after), json_=True)
    doc = json.loads(capsys.readouterr().out)
    assert doc["schema"] == "fettle.comparison/1"
    assert doc["measures"]["accuracy.drop"]["value"] == pytest.approx(5 / 90)
    assert len(doc["flipped"]) == 5
    assert doc["before"]["release"] == published.digest


def test_a_release_with_itself_is_not_shown_to_differ(
    both: tuple[PublishedRelease, Path, Path], capsys: Any
) -> None:
    _, before, _ = both
    command.compare(str(before), str(before))
    first = capsys.readouterr().out.splitlines()[0]
    assert "is not shown to differ in accuracy from" in first
    assert first.endswith("0 answers of 90 changed")


def test_a_changed_release_is_refused(
    both: tuple[PublishedRelease, Path, Path], tmp_path: Path
) -> None:
    _, before, after = both
    changed = forged.copied(after, tmp_path)
    columns(TEST, lambda table: {**table, "row": table["row"][::-1]})(changed)
    with pytest.raises(TamperedError, match=r"test_answers\.parquet of the release is changed"):
        command.compare(str(before), str(changed))


def test_the_comment_tells_the_run_the_gate_and_what_changed(
    both: tuple[PublishedRelease, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    published, _, after = both
    monkeypatch.chdir(published.root)
    report.report(markdown=True, against=str(after))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "<!-- fettle-report -->"
    assert any(line.startswith("- gate: accuracy drops by") for line in lines)
    assert "- commit 0123456789ab" in lines
    assert f"- release {published.tag}" in lines
    assert (
        f"#### {published.tag} is more accurate than tiny:{after.name}: 5 answers of 90 changed"
        in lines
    )
    with pytest.raises(UserError, match="--against compares in a comment"):
        report.report(against="x")
