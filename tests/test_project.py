from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from fettle import params, project
from fettle.errors import BusyError, ProjectError

ROOT = Path(__file__).resolve().parent.parent


def test_a_folder_without_a_project_says_what_is_missing_and_how_to_make_one(
    tmp_path: Path,
) -> None:
    with pytest.raises(ProjectError) as caught:
        project.find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no fettle project: got no params.yaml and no dvc.yaml; fettle works on the "
        "project in the current folder. Fix: cd into a project, or make one with "
        "`fettle init DIR --data PHOTOS`."
    )


def test_a_graph_of_an_earlier_fettle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  ingest:\n    cmd: python -m stages ingest\n")
    with pytest.raises(ProjectError) as caught:
        project.find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/dvc.yaml was written by an earlier fettle: got a stage that calls `python -m "
        "stages`; its stages are `fettle stage NAME` now, and depend on other files. Fix: make a "
        "project elsewhere (`fettle init new`) and copy its dvc.yaml over this one; the params and "
        "the cache stay, every stage runs once."
    )


@pytest.mark.parametrize(
    ("before", "in_git", "after"),
    [
        ("", False, "[core]\n    no_scm = true"),
        ("", True, ""),
        ("[core]\n    no_scm = true\n", True, "[core]\n"),
        ("[core]\n    remote = here\n", False, "[core]\n    no_scm = true"),
        ("[cache]\n    dir = x\n", False, "[cache]\n    dir = x\n"),
    ],
)
def test_dvc_is_told_whether_the_project_lies_in_git(
    before: str, in_git: bool, after: str, tmp_path: Path
) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    local = tmp_path / ".dvc" / "config.local"
    local.write_text(before.replace("true", project.NO_SCM.partition("= ")[2].rstrip()))
    if in_git:
        (tmp_path / ".git").mkdir()
    project.tell_dvc_of_git(tmp_path)
    told = local.read_text()
    assert after in told
    assert ("no_scm" in told) != in_git
    for line in before.splitlines():
        assert line.partition(" =")[0] in told or "no_scm" in line
    project.tell_dvc_of_git(tmp_path)
    assert local.read_text() == told  # and once is enough


def test_a_project_that_decides_for_itself_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    project.tell_dvc_of_git(tmp_path)
    assert not (tmp_path / ".dvc" / "config.local").exists()


def test_the_second_run_is_told_which_process_holds_the_work(tmp_path: Path) -> None:
    here = project.Project(tmp_path, tmp_path)
    with (
        project.hold(here, "fettle run"),
        pytest.raises(BusyError) as caught,
        project.hold(here, "fettle run --force"),
    ):
        pass
    text = str(caught.value)
    assert f"got process {os.getpid()} (`fettle run`, since 20" in text
    assert text.endswith("Fix: wait for it, or stop that process and run again.")
    with project.hold(here, "fettle run"):  # and it is free again
        pass


def test_inputs_are_written_once_and_left_alone_while_nothing_changes(tmp_path: Path) -> None:
    here = project.Project(tmp_path, tmp_path)
    settings = params.load(ROOT / "params.yaml")
    project.refresh_inputs(here, settings)
    files = sorted(p.name for p in (tmp_path / "inputs").iterdir())
    assert files == [
        "code",
        "float_runtimes.json",
        "machine.json",
        "model.json",
        "source.json",
        "table_runtimes.json",
        "toolchain",
    ]
    stated = sorted(path.stem for path in (tmp_path / "inputs" / "toolchain").iterdir())
    assert stated == sorted(settings.targets)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "inputs").rglob("*")}
    assert len(before) > 15
    project.refresh_inputs(here, settings)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "inputs").rglob("*")}


def test_every_child_process_is_told_to_stay_quiet(tmp_path: Path) -> None:
    told = project.environment(project.Project(tmp_path, tmp_path))
    assert told["DO_NOT_TRACK"] == "true"  # MLflow takes no other word
    assert told["PREFECT_HOME"] == str(tmp_path / ".fettle" / "prefect")
    assert {"DVC_NO_ANALYTICS", "GX_ANALYTICS_ENABLED", "BENTOML_DO_NOT_TRACK"} <= told.keys()


PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def told(tmp_path: Path) -> dict[str, str]:
    return project.environment(project.Project(tmp_path, tmp_path))


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "127.0.0.1,localhost,::1"),
        ("", "127.0.0.1,localhost,::1"),
        (".corp, localhost", ".corp,localhost,127.0.0.1,::1"),
        ("*", "*"),
    ],
)
def test_no_proxy_stands_before_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: str | None, expected: str
) -> None:
    if given is not None:
        monkeypatch.setenv(name, given)
    found = told(tmp_path)
    assert (found["no_proxy"], found["NO_PROXY"]) == (expected, expected)


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("http://proxy.corp:8080", True),
        ("proxy.corp:8080", True),
        ("https://user:secret@proxy.corp", True),
        ("socks5://proxy.corp:1080", False),
        ("socks://proxy.corp", False),
        ("http://", False),
        ("http://proxy.corp:port", False),
        ("http://[::1", False),
    ],
)
def test_a_proxy_that_no_client_of_ours_understands_is_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, kept: bool
) -> None:
    """httpx, which Prefect asks with, raises at such an address even if it never uses it."""
    for name in PROXIES:
        monkeypatch.setenv(name, address)
        monkeypatch.setenv(name.upper(), address)
    found = told(tmp_path)
    for name in (*PROXIES, *(name.upper() for name in PROXIES)):
        assert found.get(name, address) == (address if kept else "")
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        assert client.trust_env


@pytest.mark.parametrize("name", ["what?", "50%20off", "two\nlines", "caf\udce9"])
def test_a_folder_that_would_send_the_databases_elsewhere_is_refused(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ProjectError, match="a project cannot lie in this folder: got ") as caught:
        project.find(tmp_path / name)
    assert str(caught.value).endswith("in another folder. Fix: rename that folder.")


@pytest.mark.parametrize("name", ["fruit #1", "50% off", "a, b", "Größe", "${x}", "%(x)s", "it's"])
def test_a_folder_with_other_signs_is_a_project_s(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for file in ("params.yaml", "dvc.yaml"):
        (tmp_path / name / file).write_text("")
    assert project.find(tmp_path / name).root.name == name


def test_a_path_too_long_for_a_database_is_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["x" * 100] * 4)
    deep.mkdir(parents=True)
    with pytest.raises(ProjectError) as caught:
        project.find(deep)
    assert str(caught.value) == (
        f"a project cannot lie in this folder: got a path of {len(str(deep))} bytes; SQLite's "
        "limit leaves it 420. Fix: move the project nearer the top."
    )
