"""`fettle service install`: a unit that systemd takes, and that brings all back after a reboot."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from rehearsed import wait_for
from tiny_project import ROOT
from tiny_release import TinyRelease
from typer.testing import CliRunner

from benchmarks.chaos_campaign.campaign_project import CampaignProject
from fettle.adapters import process_identity
from fettle.cli import commands, systemd_unit
from fettle.errors import UserError
from fettle.rollout.router import model_servers, nginx_process

ANALYZE = shutil.which("systemd-analyze")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder whose name systemd would read otherwise."""
    root = tmp_path / 'fruit 50%s "best" $HOME'
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FETTLE_API_KEY", raising=False)
    monkeypatch.chdir(root)
    return root


def unit_file(config: Path) -> list[Path]:
    return sorted((config / "systemd" / "user").glob("*")) if config.is_dir() else []


@pytest.mark.parametrize("words", [[], ["--print"], ["--print", "--yes"], ["--system"]])
def test_it_is_printed_and_nothing_is_written(home: Path, words: list[str]) -> None:
    done = CliRunner().invoke(commands.app, ["service", "install", *words])
    assert done.exit_code == 0
    assert "\nExecStart=" in done.stdout
    assert unit_file(home.parent / "config") == []
    assert "nothing was written; --yes writes it to " in done.stderr


def test_it_is_written_where_it_is_wanted_and_told_how_it_begins(home: Path) -> None:
    for _ in range(2):  # a second time is an update
        done = CliRunner().invoke(commands.app, ["service", "install", "--yes"])
        (file,) = unit_file(home.parent / "config")
        assert done.stdout.splitlines() == [
            f"written: {file}; what serves now is stopped first: fettle canary stop",
            "  systemctl --user daemon-reload",
            f"  systemctl --user enable --now {file.name}",
            "  loginctl enable-linger  # at boot, and not only while you are logged in",
        ]
    assert file.name == "fettle-fruit-50-s-best-HOME.service"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_a_unit_of_another_project_is_not_written_over(home: Path) -> None:
    CliRunner().invoke(commands.app, ["service", "install", "--yes"])
    (file,) = unit_file(home.parent / "config")
    text = file.read_text().replace("WorkingDirectory=", "WorkingDirectory=/srv")
    file.write_text(text)
    done = CliRunner().invoke(commands.app, ["service", "install", "--yes"])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(f"{file} is the unit of another project: got no Working")
    assert file.read_text() == text


def test_no_secret_is_in_the_unit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_API_KEY", "hidden")
    monkeypatch.setenv("FETTLE_WEBHOOK", "https://hidden.example/x")
    done = CliRunner().invoke(commands.app, ["service", "install"])
    assert "hidden" not in done.output
    assert "FETTLE_API_KEY is a secret and not in the unit: put it into " in done.stderr


def test_a_line_break_in_a_variable_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FETTLE_NGINX", "/a\nExecStartPre=/bin/evil")
    done = CliRunner().invoke(commands.app, ["service", "install"])
    assert str(done.exception).startswith("a systemd unit cannot hold this: got ")


@pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze (Debian's systemd)")
@pytest.mark.parametrize("system", [False, True])
def test_systemd_takes_it(home: Path, tmp_path: Path, system: bool) -> None:
    unit = systemd_unit.make(home, os.environ, system=system, user="root")
    file = tmp_path / unit.path.name
    file.write_text(unit.text)
    words = [str(ANALYZE), *([] if system else ["--user"]), "verify", str(file)]
    done = subprocess.run(
        words,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # of this unit; the machine's own may have faults of theirs
    said = [line for line in done.stderr.splitlines() if unit.path.name in line]
    assert (done.returncode, said) == (0, [])


@pytest.fixture
def rollout(tmp_path: Path) -> Iterator[CampaignProject]:
    """A project with two releases, a rollout of one of them begun."""
    work = TinyRelease(tmp_path / "source")
    work.package()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, work.project.root / name)
    project = CampaignProject(work.project.root, work.release, tmp_path / "scratch")
    try:
        project.open()
        assert "error" not in project.begin()
        yield project
    finally:
        project.leave()


def power_cut(project: CampaignProject) -> None:
    """Kill all that serves at once."""
    place, found = project.place, []
    for file in (place.watchdog, place.controller):
        known = process_identity.read(file)
        assert known is not None
        found.append(psutil.Process(known.pid))
    master = nginx_process.running(place.router)
    heads = [
        server.pid for server in model_servers.ModelServers(place.arms, {}, key=None).running()
    ]
    assert master is not None
    for pid in (master, *heads):
        found += [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in found:
        process.send_signal(signal.SIGKILL)
    process_identity.wait_ended(found, timeout_s=20)


def started_by_hand(unit: systemd_unit.SystemdUnit) -> subprocess.Popen[bytes]:
    """Run a unit's ExecStart in its folder, with its environment alone."""
    fields = [line.partition("=") for line in unit.text.splitlines()]
    values = {name: value for name, _, value in fields}
    given = (shlex.split(value)[0] for name, _, value in fields if name == "Environment")
    environ = dict(one.replace("%%", "%").split("=", 1) for one in given)
    words = [
        word.replace("$$", "$").replace("%%", "%") for word in shlex.split(values["ExecStart"])
    ]
    cwd = values["WorkingDirectory"].replace("%%", "%")
    return subprocess.Popen(words, cwd=cwd, env=environ, start_new_session=True)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.flows
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_after_a_power_cut_its_command_brings_all_back_with_the_evidence(
    rollout: CampaignProject,
) -> None:
    port = rollout.serving.port
    rollout.fettle("canary", "pause")
    before = json.loads(rollout.fettle("canary", "status", "--json").out)
    assert (before["state"], before["serves"], ready(port)) == ("paused", True, True)
    power_cut(rollout)
    assert not ready(port)
    dead = json.loads(rollout.fettle("canary", "status", "--json").out)
    assert (dead["serves"], dead["supervisor"]) == (False, "stopped")
    unit = systemd_unit.make(rollout.root, rollout.env, system=False, user="x")
    service = started_by_hand(unit)
    try:
        wait_for(lambda: ready(port), timeout_s=90)
        wait_for(lambda: process_identity.read(rollout.place.controller) is not None, timeout_s=60)
        again = json.loads(rollout.fettle("canary", "status", "--json").out)
        assert again["rollout"] == before["rollout"]
        assert (again["state"], again["reason"]) == ("paused", "paused by order")
        watcher = process_identity.read(rollout.place.watchdog)
        assert watcher is not None
        os.kill(watcher.pid, signal.SIGKILL)  # its controller starts another; the service goes on
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            assert ready(port)
            assert service.poll() is None
            time.sleep(0.5)
        service.send_signal(signal.SIGTERM)  # as `systemctl stop`
        assert service.wait(90) == 0
        assert not ready(port)
    finally:
        service.kill()
        service.wait()
