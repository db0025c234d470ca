"""Sources as git lists them, and as they lie where there is no git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fettle.adapters import git_sources


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x = 1\n")


def listed(root: Path) -> list[str]:
    return [path.as_posix() for path in git_sources.source_files(root)]


def repository(root: Path) -> None:
    subprocess.run(["git", "init", "-q", str(root)], check=True)


FILES = ("params.yaml", "net.py", "venv/lib/a.py", "data/1.txt", "data/1.jpg", "artifacts/x.json")


def test_without_git_an_environment_and_data_are_no_sources(tmp_path: Path) -> None:
    write(tmp_path, *FILES)
    assert listed(tmp_path) == ["net.py", "params.yaml"]


def test_with_git_they_are_none_either_though_git_does_not_ignore_them(tmp_path: Path) -> None:
    repository(tmp_path)
    write(tmp_path, *FILES, "ignored.py")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    assert listed(tmp_path) == ["net.py", "params.yaml"]


def test_a_project_in_a_folder_of_a_repository_lists_its_own_files(tmp_path: Path) -> None:
    repository(tmp_path)
    write(tmp_path, "above.py", *(f"fruit/{name}" for name in (*FILES, "ignored.py")))
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    assert listed(tmp_path / "fruit") == ["net.py", "params.yaml"]


def test_a_folder_that_git_ignores_is_listed_as_it_lies(tmp_path: Path) -> None:
    repository(tmp_path)
    (tmp_path / ".gitignore").write_text("fruit/\n")
    write(tmp_path, "fruit/net.py")
    assert listed(tmp_path / "fruit") == ["net.py"]


@pytest.mark.parametrize("under_git", [False, True])
def test_names_that_are_no_text_and_dead_links_are_digested_without_a_crash(
    tmp_path: Path, under_git: bool
) -> None:
    if under_git:
        repository(tmp_path)
    write(tmp_path, "net.py")
    (tmp_path / "dead.py").symlink_to("nowhere.py")
    before = git_sources.describe(tmp_path)["source"]
    write(tmp_path, "caf\udce9.py")  # the byte 0xe9, as Latin-1 writes a name
    assert git_sources.describe(tmp_path)["source"] != before
    assert len(git_sources.source_files(tmp_path)) == 2
