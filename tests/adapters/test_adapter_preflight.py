"""Folders that a run needs and cannot write, as a container has them. /proc takes no file, for
root neither.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from fettle.adapters import bento_store, preflight
from fettle.cli import doctor
from fettle.errors import ProjectError, UserError
from fettle.project import Project
from fettle.release import signing
from fettle.serving import api_key_file


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "XDG_CONFIG_HOME",
        "BENTOML_HOME",
        signing.KEY_FILE,
        api_key_file.KEY,
        api_key_file.KEY_FILE,
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "fruit").mkdir()
    return Project(tmp_path / "fruit", tmp_path / "fruit")


def environ() -> dict[str, str]:
    import os

    return dict(os.environ)


def test_a_home_that_can_be_made_passes_and_nothing_is_left(
    project: Project, tmp_path: Path
) -> None:
    preflight.refuse(project, environ())
    assert [p.name for p in tmp_path.iterdir()] == ["fruit"]


def test_a_read_only_home_is_refused_with_what_to_set(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    with pytest.raises(ProjectError) as caught:
        preflight.refuse(project, environ())
    assert str(caught.value) == (
        "the folder of the signing key (/proc/.config/fettle) and the Bento store "
        "(/proc/bentoml/bentos) cannot be written: got No such file or directory (/proc); a run "
        "writes there, so it is tried before the training. Fix: set FETTLE_SIGNING_KEY to a file "
        "in a folder that can be written, or HOME to such a folder; set BENTOML_HOME to a folder "
        "that can be written, or HOME to such a folder."
    )


def test_a_home_that_is_a_file_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(ProjectError, match=r"got Not a directory \(.*/home\)"):
        preflight.refuse(project, environ())


def test_what_the_advice_names_is_enough(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentos"))
    monkeypatch.setenv(signing.KEY_FILE, str(tmp_path / "keys" / "mine.pem"))
    preflight.refuse(project, environ())


def test_a_key_that_is_there_needs_no_writable_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signing.KEY_FILE, "/proc/version")
    preflight.refuse(project, environ())


def test_a_project_and_a_temporary_folder_are_tried_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    closed = Project(Path("/proc"), Path("/proc"))
    with pytest.raises(ProjectError) as caught:
        preflight.refuse(closed, environ())
    assert "the project (/proc) and the temporary folder (/proc) cannot be" in str(caught.value)
    assert "set TMPDIR to a folder that can be written" in str(caught.value)


def test_the_doctor_says_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(finding.ok for finding in doctor._writable(project))
    monkeypatch.setenv("HOME", "/proc")
    bad = [finding for finding in doctor._writable(project) if not finding.ok]
    assert [(f.what, f.found) for f in bad] == [
        (
            "the folder of the signing key",
            "/proc/.config/fettle: No such file or directory (/proc)",
        ),
        ("the Bento store", "/proc/bentoml/bentos: No such file or directory (/proc)"),
    ]
    assert bad[1].fix.startswith("set BENTOML_HOME to a folder that can be written")
    assert doctor._key().ok
    assert doctor._signing_key().ok


def test_a_user_without_any_home_is_told_to_set_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: int) -> object:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(UserError, match="this user has no home folder: got HOME is not set"):
        preflight.refuse(project, environ())
    found = doctor._no_home()
    assert found is not None
    assert (found.ok, found.fix) == (False, "set HOME to a folder that can be written")


@pytest.mark.parametrize("home", ["/proc", "/proc/version"])
def test_a_key_that_cannot_be_written_is_a_user_s_error(
    monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("HOME", home)
    with pytest.raises(UserError, match="the signing key cannot be written to /proc"):
        signing.make_key(environ())
    with pytest.raises(UserError, match="the API key cannot be written at /proc"):
        bento_store.make_key()
    assert api_key_file.read(environ()) is None


def test_a_folder_in_a_key_s_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder stands in its place"):
        signing.make_key({signing.KEY_FILE: str(tmp_path)})
    with pytest.raises(UserError, match="the API key cannot be written at"):
        api_key_file.make({api_key_file.KEY_FILE: str(tmp_path)})
