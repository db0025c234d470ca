from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fettle.errors import ProjectError
from fettle.recipes.search.pareto_front import front, hypervolume
from fettle.recipes.search.surrogate_model import (
    compress_scale,
    expand_scale,
    fit,
    likelihood,
    regress,
    spearman,
)
from fettle.recipes.search.trial import Move, Result, Trial
from fettle.recipes.search.trial_journal import TrialJournal

ROOT = Path(__file__).resolve().parents[3]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = TrialJournal(path, "a")
    journal.append({"kind": "one"})
    path.write_bytes(path.read_bytes() + b'{"kind": "tw')
    again = TrialJournal(path, "a")
    assert again.events == [{"kind": "search", "identity": "a"}, {"kind": "one"}]
    again.append({"kind": "two"})
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == [
        "search",
        "one",
        "two",
    ]


def test_the_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    TrialJournal(tmp_path / "journal", "a")
    with pytest.raises(ProjectError) as caught:
        TrialJournal(tmp_path / "journal", "b")
    assert str(caught.value) == (
        f'{tmp_path / "journal"} is the journal of another search: got "a"; this one is "b". '
        "Fix: delete that file: the search starts over."
    )


FULL = """
import resource, sys
from pathlib import Path
from fettle.recipes.search.trial_journal import TrialJournal

journal = TrialJournal(Path(sys.argv[1]), "a")
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))  # a disk with room for a part of a line
for at in range(9):
    journal.append({"kind": "result", "at": at, "text": "x" * 60})
"""


def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_a_journal_that_reads(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "OSError: [Errno 27] File too large" in done.stderr
    text = path.read_text()
    assert text.endswith("\n")
    assert len(text) <= 200
    kept = [json.loads(line) for line in text.splitlines()]
    assert [event.get("at") for event in kept] == [None, 0]
    journal = TrialJournal(path, "a")
    journal.append({"kind": "result", "at": 1})
    assert TrialJournal(path, "a").events[-1] == {"kind": "result", "at": 1}


def test_the_front_is_what_no_other_point_beats() -> None:
    points = [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 2.5), (3.0, 3.0), (1.0, 3.0)]
    assert front(points) == [1, 2, 0]
    assert front([]) == []
    assert hypervolume(points, (4.0, 4.0)) == 1 * 1 + 1 * 2 + 1 * 3
    assert hypervolume([(5.0, 0.0)], (4.0, 4.0)) == 0


def test_drops_survive_the_scale_both_ways() -> None:
    for drop in (-0.3, -0.01, 0.0, 0.004, 0.02, 0.9):
        assert expand_scale(compress_scale(drop)) == pytest.approx(drop)
    assert expand_scale(1e9) == 1.0


def test_the_regression_follows_the_data_over_the_prior() -> None:
    prior = ((0.5, 0.1), (0.3, 0.3))
    assert list(regress(prior, []).mean) == pytest.approx([0.5, 0.1])
    rows = [((x, 1.0), 0.9 * x + 1.0) for x in (0.0, 1.0, 2.0, 4.0)] * 20
    assert list(regress(prior, rows).mean) == pytest.approx([0.9, 1.0], abs=0.02)
    assert regress(prior, rows).noise < 0.1 < regress(prior, []).noise


def test_what_was_hardly_trained_is_expected_to_recover_and_what_was_trained_long_is_not() -> None:
    root = Trial(number=0, parent=-1, recipe=(), role="root", result=Result(value=1.3, drop=0.0))
    learnt = fit([root])
    move = Move(step={}, role="recover", value=0.6, epochs=16)
    hardly, long = (
        Trial(
            number=1,
            parent=0,
            recipe=(),
            role="shrink",
            result=Result(value=0.6, drop=drop),
            epochs=epochs,
        )
        for drop, epochs in ((0.4, 2), (0.034, 20))
    )
    assert learnt.final(hardly, move, 16)[0] < compress_scale(0.01)
    assert learnt.final(long, move, 16)[0] > compress_scale(0.01)


def test_the_likelihood_is_that_of_the_normal_law_in_the_scale() -> None:
    t = compress_scale(0.02)
    assert likelihood(0.02, t, 1.0) == pytest.approx(0.5)
    assert likelihood(0.02, t - 1.0, 1.0) == pytest.approx(0.8413, abs=1e-4)
    assert likelihood(0.02, t + 9.0, 1.0) < 1e-6


def test_rank_correlation_averages_ties() -> None:
    import numpy as np

    up = np.array([1.0, 2.0, 2.0, 3.0])
    assert spearman(up, up) == pytest.approx(1.0)
    assert spearman(up, -up) == pytest.approx(-1.0)
    assert spearman(up, np.zeros(4)) == 0.0
