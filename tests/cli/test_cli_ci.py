from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pushed import git
from tiny_project import ROOT

from fettle import manifest
from fettle.adapters.push_queue import PushQueue
from fettle.cli import ci
from fettle.errors import DataError, ProjectError, UserError
from fettle.local_settings import set_local

PHOTOS = "ingest:\n  source: digits\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of digits in a git repository."""
    home = tmp_path / "project"
    home.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, home / name)
    git(home, "init", "--quiet", "--initial-branch=main")
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    made = tmp_path / "fettle_mlops-1.0-py3-none-any.whl"
    made.write_bytes(b"a wheel")
    return made


def of_photos(project: Path, path: str | None) -> None:
    """Make the project one of a folder of photos."""
    text = (ROOT / "examples" / "photos.yaml").read_text()
    if path is not None:
        options = f"options: {{path: {path}}}"
        text, count = re.subn(r"options: \{[^}]*\}", options, text, count=1)
        assert count == 1
    (project / "params.yaml").write_text(text)


def test_actions_are_pinned_by_digest_and_fettle_by_its_wheels(project: Path, wheel: Path) -> None:
    ci.init(wheel=wheel)
    workflow = (project / ".github" / "workflows" / "fettle.yml").read_text()
    uses = re.findall(r"uses: (\S+)", workflow)
    assert len(uses) == 4
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", one) for one in uses)
    doc: dict[Any, Any] = yaml.safe_load(workflow)
    assert doc[True] == ["push", "pull_request"]  # YAML 1.1 reads `on` as true
    assert [step["run"] for step in doc["jobs"]["release"]["steps"] if "run" in step][:2] == [
        "sh ci/install.sh",
        "sh ci/run.sh",
    ]
    gitlab = yaml.safe_load((project / ".gitlab-ci.yml").read_text())
    assert gitlab["release"]["script"] == ["sh ci/run.sh"]
    install = (project / "ci" / "install.sh").read_text()
    assert f'echo "{manifest.sha256_file(wheel)}  {wheel.name}" | sha256sum -c -' in install
    assert (project / "ci" / wheel.name).read_bytes() == b"a wheel"
    for text in (workflow, install, (project / ".gitlab-ci.yml").read_text()):
        assert not re.search(r"pip install (--quiet )?\"?fettle", text)  # no name to be taken


def test_a_wheel_that_was_exchanged_is_not_installed(project: Path, wheel: Path) -> None:
    ci.init(wheel=wheel)
    (project / "ci" / wheel.name).write_bytes(b"another")
    done = subprocess.run(
        ["sh", "ci/install.sh"], capture_output=True, text=True, check=False, env=quiet(project)
    )
    assert done.returncode != 0
    assert "FAILED" in done.stdout
    assert "pip was asked" not in done.stdout
    (project / "ci" / wheel.name).write_bytes(b"a wheel")
    done = subprocess.run(
        ["sh", "ci/install.sh"], capture_output=True, text=True, check=False, env=quiet(project)
    )
    assert "pip was asked" in done.stdout


def quiet(project: Path, **programs: str) -> dict[str, str]:
    """An environment whose python and fettle only say that they were asked."""
    shims = project.parent / "shims"
    shims.mkdir(exist_ok=True)
    for name, text in {"python": "echo pip was asked", **programs}.items():
        (shims / name).write_text(f"#!/bin/sh\n{text}\n")
        (shims / name).chmod(0o755)
    return {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}"}


@pytest.mark.parametrize("code", [0, 2])
def test_the_steps_leave_a_comment_and_the_runs_own_exit_code(
    project: Path, wheel: Path, code: int
) -> None:
    ci.init(wheel=wheel)
    fettle = f'[ "$1" = run ] && exit {code}\n[ "$1" = report ] && echo the report $2\nexit 0'
    done = subprocess.run(
        ["sh", "ci/run.sh"],
        capture_output=True,
        text=True,
        check=False,
        env=quiet(project, fettle=fettle),
    )
    assert done.returncode == code
    assert (project / "comment.md").read_text() == "the report --markdown\n"


def test_the_key_of_a_secret_signs_and_is_read_by_nobody_else(project: Path, wheel: Path) -> None:
    ci.init(wheel=wheel)
    pem = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    fettle = (
        '[ "$1" = run ] && stat -c %a "$FETTLE_SIGNING_KEY" && '
        'head -1 "${FETTLE_SIGNING_KEY%.pem}.pub"\nexit 0'
    )
    done = subprocess.run(
        ["sh", "ci/run.sh"],
        capture_output=True,
        text=True,
        check=False,
        env={**quiet(project, fettle=fettle), "FETTLE_SIGNING_PEM": pem},
    )
    assert done.stdout.splitlines() == ["600", "-----BEGIN PUBLIC KEY-----"]


def test_data_that_a_fresh_clone_would_not_have_is_refused(project: Path, wheel: Path) -> None:
    of_photos(project, None)
    set_local(project, "data", project.parent)
    with pytest.raises(DataError, match="a fresh clone of this project would have no data"):
        ci.init(wheel=wheel)
    for path in ("/srv/photos", "../photos"):
        of_photos(project, path)
        with pytest.raises(DataError, match=f"ingest.options.path is {path}"):
            ci.init(wheel=wheel)
    of_photos(project, "data")
    with pytest.raises(DataError, match="neither git nor DVC tracks data"):
        ci.init(wheel=wheel)
    (project / "data.dvc").touch()
    with pytest.raises(DataError, match="data is tracked by DVC, and no remote has it"):
        ci.init(wheel=wheel)
    assert not (project / "ci").exists()
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\n    remote = store\n['remote \"store\"']\n")
    ci.init(wheel=wheel)
    assert "\ndvc pull --quiet data.dvc || code=$?\n" in (project / "ci" / "run.sh").read_text()


def test_files_of_others_are_not_written_over(project: Path, wheel: Path) -> None:
    (project / ".gitlab-ci.yml").write_text("mine: {}\n")
    with pytest.raises(UserError, match=r"\.gitlab-ci\.yml is there already"):
        ci.init(wheel=wheel)
    assert not (project / "ci").exists()
    ci.init(wheel=wheel, force=True)
    ci.init(wheel=wheel)  # its own are


def test_what_is_no_wheel_and_nothing_to_write_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        ci.init()
    assert "nothing to write: got neither --wheel nor --hook" in str(caught.value)
    with pytest.raises(UserError, match="is no wheel of fettle"):
        ci.init(wheel=project / "params.yaml")


def test_the_hook_is_written_into_a_bare_repository_only(
    project: Path, tmp_path: Path, capsys: Any
) -> None:
    bare = tmp_path / "fruit.git"
    for folder in (bare, project):
        with pytest.raises(ProjectError, match=f"{folder} is no bare repository"):
            ci.init(hook=folder)
    git(tmp_path, "init", "--quiet", "--bare", str(bare))
    ci.init(hook=bare, main="trunk", supersede=True)
    hook = bare / "hooks" / "post-receive"
    assert os.access(hook, os.X_OK)
    settings = PushQueue(bare).settings()
    assert (settings.main, settings.on_push, settings.folder) == ("trunk", "supersede", ".")
    hook.write_text("#!/bin/sh\necho mine\n")
    with pytest.raises(UserError, match="post-receive is there already"):
        ci.init(hook=bare)
    capsys.readouterr()
    ci.status(bare)
    assert capsys.readouterr().out == "nothing was pushed yet\n"


def test_a_project_below_the_repositorys_top_is_run_there(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = project / "models" / "fruit"
    below.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(project / name, below / name)
    git(tmp_path, "init", "--quiet", "--bare", str(tmp_path / "fruit.git"))
    monkeypatch.chdir(below)
    ci.init(hook=tmp_path / "fruit.git")
    assert PushQueue(tmp_path / "fruit.git").settings().folder == "models/fruit/"
