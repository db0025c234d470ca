"""The wheel, installed where no checkout is: `fettle init` and the line, in a user's project that
has folders `stages` and `flows` of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import fettle_calls
import pytest
from box import Box, set_params
from conftest import SETTINGS

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.wheel]
ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("fettle", "stages", "flows", "bentos", "examples", "tools")
FILES = ("dvc.yaml", "params.yaml", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
PACKED = (*FOLDERS, *FILES)
NET = """
from stages.blocks import WIDTH  # the user's own package of that name
from torch import nn


def build(classes, channels, size_px):
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(),
        nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1), nn.BatchNorm2d(2 * WIDTH), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * WIDTH, classes),
    )
"""


class Installed(Box):
    """A home and a project whose `fettle` is the wheel's."""

    python: Path

    def environment(self) -> dict[str, str]:
        found = super().environment()
        path = f"{self.python.parent}{os.pathsep}{found['PATH']}"
        return {
            **found,
            "PATH": path,
            "PYTHONPATH": fettle_calls.FOLDER,
            "FETTLE_CALLS": self.calls,
        }

    @property
    def calls(self) -> str:
        return str(self.home / "calls")

    def command(self, *words: str) -> list[str]:
        return [str(self.python.with_name("fettle")), *words]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of a copy of the sources, without the network."""
    folder, tree = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("sources")
    for name in PACKED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, tree / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, tree / name)
    words = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, "--wheel-dir", str(folder), str(tree)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("fettle_mlops-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install it into a new venv, which borrows everything else; make a project with it."""
    home = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    python = home / "venv" / "bin" / "python"
    words = ("install", "--no-deps", "--no-index", "--quiet", str(wheel))
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, *words], check=True, env=bare)
    site = next((home / "venv" / "lib").glob("python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    Installed.python = python
    made = Installed(home, home / "fruit")
    done = made.fettle("init", "fruit", "--data", str(photos), cwd=home)
    assert done.returncode == 0, done.stderr
    own = {"finetune.family": "torch_module", "finetune.options": "{entry: 'net:build'}"}
    set_params(made.project / "params.yaml", {**SETTINGS, **own})
    for name in ("stages", "flows"):
        (made.project / name).mkdir()
        for module in ("__init__", "release", "publish", "ingest", "export", "_contract"):
            text = (
                "" if module == "__init__" else "raise RuntimeError('this is the user\\'s own')\n"
            )
            (made.project / name / f"{module}.py").write_text(text)
    (made.project / "stages" / "blocks.py").write_text("WIDTH = 48\n")
    (made.project / "net.py").write_text(NET)
    return made


def test_the_wheel_carries_what_init_copies_and_no_link(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        template = "fettle/cli/template"
        assert archive.read(f"{template}/graph.yaml") == (ROOT / "dvc.yaml").read_bytes()
        assert archive.read(f"{template}/params.yaml") == (ROOT / "params.yaml").read_bytes()
    assert f"{template}/bentos/classifier/service.py" in names
    assert f"{template}/photos.yaml" in names
    assert not [name for name in names if name.endswith("/dvc.yaml")]  # DVC would run it too
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_a_new_project_s_graph_is_this_repository_s(installed: Installed) -> None:
    assert (installed.project / "dvc.yaml").read_bytes() == (ROOT / "dvc.yaml").read_bytes()


def test_the_line_runs_beside_the_user_s_own_stages_and_flows(installed: Installed) -> None:
    done = installed.fettle("run")
    installed.fettle("ui", "--stop")
    assert done.returncode == 0, done.stderr[-4000:]
    release = json.loads((installed.project / ".fettle" / "last.json").read_text())["release"]
    assert (installed.project / release["folder"] / "release.json").is_file()
    again = installed.fettle("run")
    assert "Nothing changed since" in again.stdout


def test_every_function_that_a_stage_called_was_reached_by_reading(installed: Installed) -> None:
    """The digests cover what really ran: a call they miss would leave a stale artefact."""
    called = fettle_calls.read(Path(installed.calls))
    assert len(called) == 12
    for address, calls in called.items():
        path = installed.project / "inputs" / "code" / f"{address.replace('@', '/')}.json"
        known = json.loads(path.read_text())["functions"]
        missed = sorted(f"{file} {name}" for file, name in calls if name not in known.get(file, {}))
        assert missed == [], address
        assert len(calls) > 20


def test_plain_dvc_finds_all_as_it_was(installed: Installed) -> None:
    done = subprocess.run(
        [str(installed.python), "-m", "dvc", "repro"],
        cwd=installed.project,
        env=installed.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("didn't change, skipping") == 12
