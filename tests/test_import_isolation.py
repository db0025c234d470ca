"""Our stages and flows are found wherever the user has folders of these names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOOK = """
from fettle import import_isolation
stages = import_isolation.load("stages")
import stages.select, fettle.stage_contract
assert import_isolation.load("stages") is stages
print(stages.__file__)
"""
LIVE_TOGETHER = """
import sys
from pathlib import Path
from fettle import import_isolation
ours = import_isolation.load("stages")
with import_isolation.of_the_user([Path.cwd()]):
    import net
    assert sys.modules["stages"].WHOSE == "theirs"
assert sys.modules["stages"] is ours
import stages.select
print(net.WIDTH, net.late())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with packages of the same names."""
    for name in ("stages", "flows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("WHOSE = 'theirs'\n")
    (tmp_path / "stages" / "select.py").write_text("raise RuntimeError('the user\\'s own')\n")
    (tmp_path / "stages" / "blocks.py").write_text("WIDTH = 3\n")
    (tmp_path / "net.py").write_text(
        "import stages\nfrom stages.blocks import WIDTH\n\n\ndef late():\n    return stages.WHOSE\n"
    )
    return tmp_path


def python(project: Path, *words: str, path: str = "") -> str:
    env = {"PYTHONPATH": path or str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *words], cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_ours_are_loaded_though_the_current_folder_comes_first(project: Path) -> None:
    assert python(project, "-c", LOOK) == str(ROOT / "stages" / "__init__.py")


def test_ours_are_loaded_though_pythonpath_names_the_user_s_first(project: Path) -> None:
    path = f"{project}:{ROOT}"
    assert python(project, "-c", LOOK, path=path) == str(ROOT / "stages" / "__init__.py")


def test_the_user_s_model_may_import_a_package_of_their_own_named_stages(project: Path) -> None:
    assert python(project, "-c", LIVE_TOGETHER) == "3 theirs"


def test_a_module_of_flows_is_run_as_a_process_from_beside_fettle(project: Path) -> None:
    (project / "flows" / "promote.py").write_text("raise RuntimeError('the user\\'s own')\n")
    code = "from fettle.import_isolation import command; print(*command('flows.stage_events'))"
    words = python(project, "-c", code).split()
    assert words[:5] == [
        sys.executable,
        "-P",
        "-m",
        "fettle.import_isolation",
        "flows.stage_events",
    ]
    assert python(project, *words[1:]) == ""


def test_a_stage_is_refused_by_name_with_the_nearest(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fettle.cli.main", "stage", "comprss"],
        cwd=project,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "fettle: there is no stage 'comprss', did you mean 'compress'?; the stages are compress, "
        "evaluate, export, finetune, ingest, inputs, latency_table, package, select, validate, "
        "verdict.\n"
    )


def test_a_stage_that_runs_per_target_says_so(project: Path) -> None:
    (project / "params.yaml").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "fettle.cli.main", "stage", "export"],
        cwd=project,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "fettle: the stage export runs for one target: got no target. Fix: fettle stage export "
        "TARGET.\n"
    )
