from __future__ import annotations

from pathlib import Path

import pytest

from fettle.cli.predict import find_release
from fettle.errors import ProjectError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    for name in ("abc123", "abd456", "fff000"):
        (tmp_path / "releases" / name).mkdir(parents=True)
        (tmp_path / "releases" / name / "release.json").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_release_is_found_by_its_folder_and_by_the_start_of_its_digest(project: Path) -> None:
    assert find_release("ff") == project / "releases" / "fff000"
    assert find_release("releases/abc123").resolve() == project / "releases" / "abc123"


def test_a_release_that_is_not_clear_is_refused_with_those_there_are(project: Path) -> None:
    with pytest.raises(ProjectError, match="several releases begin so: got abc123, abd456"):
        find_release("ab")
    with pytest.raises(ProjectError, match="no such release: got abc123, abd456, fff000"):
        find_release("9")
    with pytest.raises(ProjectError, match=r"releases is no release: got no release\.json in it"):
        find_release("releases")


def test_without_a_run_there_is_no_last_release(project: Path) -> None:
    with pytest.raises(ProjectError, match="run `fettle run` first"):
        find_release(None)
