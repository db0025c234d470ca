"""`fettle run --budget`: the run is sized to a time before anything runs, and that is said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_photos

from fettle.cli.run import budget_seconds
from fettle.errors import UserError

FETTLE = (sys.executable, "-P", "-m", "fettle.cli.main")


def fettle(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FETTLE, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("budget")
    tiny_photos.fill(root / "photos", ["cat", "dog"], 60, size_px=40)
    done = fettle(root, "init", "pets", "--data", "photos")
    assert done.returncode == 0, done.stderr
    return root / "pets"


def test_it_says_first_what_it_chose_and_why_and_probes_the_machine_once(home: Path) -> None:
    before = (home / "params.yaml").read_bytes()
    first = fettle(home, "run", "--budget", "25m", "--dry-run")
    assert first.returncode == 0, first.stderr
    probe, head, chosen, since = first.stderr.splitlines()[:4]
    assert probe == "timing a few training steps on this machine"
    assert re.fullmatch(
        r"budget 25 min: .+ for fine-tuning, .+ for the search, .+ for data, latency table, "
        r"export, evaluation and release",
        head,
    )
    assert "finetune.epochs_max 14, compress.search.wall_clock_max_s " in chosen
    assert re.match(
        r"since  60 images to train on, \d+ ms each a training step here \(\S+ times the "
        r"committed table's machine\)",
        since,
    )
    again = fettle(home, "run", "--budget", "25m", "--dry-run")
    assert again.stderr.splitlines()[:3] == [head, chosen, since]
    workspaces = list((home / ".fettle" / "ws").iterdir())
    assert len(workspaces) == 1
    text = (workspaces[0] / "params.yaml").read_text()
    assert re.search(r"^  epochs_max: 14", text, flags=re.M)
    assert (home / "params.yaml").read_bytes() == before


def test_a_budget_that_is_too_small_runs_nothing_and_names_the_least(home: Path) -> None:
    done = fettle(home, "run", "--budget", "5s", "--dry-run")
    assert done.returncode == 2
    assert re.search(
        r"the budget is too small for this data on this machine: got 5 s; the least that works is "
        r"a first release \(fettle run --first\): about \d+ min",
        done.stderr,
    )


def test_a_budget_beside_a_first_release_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        budget_seconds("25m", first=True)
    assert str(caught.value) == (
        "--budget and --first are two sizes of one run; --first takes what a linear probe takes; "
        "--budget sizes everything to a time. Fix: give one of them."
    )
    assert budget_seconds(None, first=True) is None


def test_a_budget_and_sections_that_are_set_whole_go_together(home: Path) -> None:
    search = "compress.search={evaluations_max: 3, trial_epochs: 1, final_epochs: 2}"
    done = fettle(home, "run", "--budget", "25m", "--dry-run", "--set", search)
    assert done.returncode == 0, done.stderr
    assert "compress.search.final_epochs 4" in done.stderr  # twice what was asked, at most
