from __future__ import annotations

import stat
from pathlib import Path

import pytest
from certified import certificate
from served import free_port

from fettle.errors import UserError
from fettle.project import Project
from fettle.rollout.supervisor import supervisor_launch
from fettle.serving import api_key_file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of a user who has no API key yet."""
    for name in (api_key_file.KEY, api_key_file.KEY_FILE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "project"
    (root / ".fettle" / "canary").mkdir(parents=True)
    return Project(root, root)


def test_what_is_served_on_loopback_gets_an_api_key(project: Project, tmp_path: Path) -> None:
    port = free_port()
    made = supervisor_launch.begin_serving(project, host="127.0.0.1", port=port, champion=None)
    assert (made.host, made.port) == ("127.0.0.1", port)
    file = tmp_path / "config" / "fettle" / "api_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = file.read_text()
    supervisor_launch.begin_serving(project, host="127.0.0.1", port=free_port(), champion=None)
    assert file.read_text() == key  # it is made once


def test_beyond_loopback_nothing_is_served_without_a_key_and_none_is_made(
    project: Project, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="this server has no API key, so it may listen on loopback"):
        supervisor_launch.begin_serving(project, host="0.0.0.0", port=free_port(), champion=None)
    assert not (tmp_path / "config").exists()
    assert supervisor_launch.layout_of(project).serving() is None


def test_a_certificate_that_cannot_serve_is_refused_before_anything_is_written(
    project: Project, tmp_path: Path
) -> None:
    one, two = certificate(tmp_path, "one"), certificate(tmp_path, "two")
    for pair in ((tmp_path / "none.pem", one[1]), (one[0], two[1])):
        with pytest.raises(UserError) as caught:
            supervisor_launch.begin_serving(
                project,
                host="127.0.0.1",
                port=free_port(),
                champion=None,
                certificate=str(pair[0]),
                certificate_key=str(pair[1]),
            )
        assert str(pair[0]) in str(caught.value)
        assert caught.value.exit_code == 2
    assert supervisor_launch.layout_of(project).serving() is None


def test_a_certificate_in_a_folder_with_a_space_makes_the_address_https(
    project: Project, tmp_path: Path
) -> None:
    pair, port = certificate(tmp_path / "my certs"), free_port()
    made = supervisor_launch.begin_serving(
        project,
        host="127.0.0.1",
        port=port,
        champion=None,
        certificate=str(pair[0]),
        certificate_key=str(pair[1]),
    )
    assert made.url == f"https://127.0.0.1:{port}"


def test_an_address_that_nginx_cannot_take_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(api_key_file.KEY, "k")
    root = tmp_path / "a folder"
    root.mkdir()
    spaced = Project(root, root)
    with pytest.raises(UserError, match="nginx cannot take this folder's name"):
        supervisor_launch.begin_serving(spaced, host="127.0.0.1", port=free_port(), champion=None)
    assert supervisor_launch.layout_of(spaced).serving() is None
