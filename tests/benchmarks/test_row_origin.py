"""A row's origin tells this machine, these packages, the commit and the command as it was given."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

from benchmarks import row_origin
from fettle.hardware import machine_fingerprint


def git(tree: Path, *words: str) -> str:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(
        ["git", *name, *words], cwd=tree, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_machine_and_the_versions_are_this_one_s(tmp_path: Path) -> None:
    origin, here = row_origin.take("make bench", tree=tmp_path), machine_fingerprint.fingerprint()
    assert (origin.cpu_model, origin.cores) == (here["cpu"], here["cores"])
    assert origin.versions is not None
    assert origin.versions["python"] == here["python"]
    assert origin.versions["onnxruntime"] == metadata.version("onnxruntime")
    assert origin.command == "make bench"
    assert origin.date is not None
    assert origin.date.endswith("+00:00")
    assert origin.recorded_in is None


def test_outside_git_the_commit_is_not_known(tmp_path: Path) -> None:
    assert row_origin.take("x", tree=tmp_path).commit is None


def test_the_commit_says_when_files_differ_from_it_but_for_the_results(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    for file in ("code.py", "benchmarks/results/main.json", "docs/benchmarks.md"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "benchmarks/results/main.json").write_text("2")
    (tmp_path / "docs/benchmarks.md").write_text("2")
    assert row_origin.take("x", tree=tmp_path).commit == commit
    (tmp_path / "code.py").write_text("2")
    assert row_origin.take("x", tree=tmp_path).commit == f"{commit}-dirty"


def test_the_command_names_no_folder_of_this_machine() -> None:
    given = ["--only", "photos", "--photos", "/data/of/mine/hands of all", "--rounds", "50"]
    said = row_origin.command_line("benchmarks.main", given)
    assert said == "python -m benchmarks.main --only photos --photos 'hands of all' --rounds 50"
