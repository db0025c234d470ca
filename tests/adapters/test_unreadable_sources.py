"""Source files that this user may not read: left out, listed, and told."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2  # linux/prctl.h, capability.h
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's capabilities")
LIST = """
import sys
from pathlib import Path
from fettle.adapters import git_sources
root = Path(sys.argv[1])
print([str(path) for path in git_sources.unreadable(root)])
print([str(path) for path in git_sources.source_files(root)])
git_sources.describe(root)
"""
LAY_OUT = """
import sys
from pathlib import Path
from fettle.cli.run import lay_out
from fettle.project import Project
root = Path(sys.argv[1])
place, _ = lay_out(Project(root, root), None, ["seed=3"])
print(sorted(str(path.relative_to(place.tree)) for path in place.tree.rglob("*.py")))
"""


def bound_by_modes() -> None:
    """Let a file's mode hold for root too."""
    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def ask(script: str, root: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)],
        preexec_fn=bound_by_modes,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for name in ("net", "bentos/classifier"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("bentos/classifier/service.py", "net/own.py", "net/locked.py"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "net" / "locked.py").chmod(0)
    return tmp_path


@pytest.mark.parametrize("under_git", [False, True], ids=["plain", "git"])
def test_an_unreadable_source_is_listed_apart_and_ends_nothing(
    project: Path, under_git: bool
) -> None:
    if under_git:
        subprocess.run(["git", "init", "-q", str(project)], check=True)
    unreadable, sources = ask(LIST, project).stdout.splitlines()
    assert unreadable == "['net/locked.py']"
    assert sources == ("['bentos/classifier/service.py', 'dvc.yaml', 'net/own.py', 'params.yaml']")


def test_a_workspace_is_made_without_it_and_says_so(project: Path) -> None:
    done = ask(LAY_OUT, project)
    assert "left out of the workspace: net/locked.py cannot be read" in done.stderr.splitlines()
    assert done.stdout.splitlines()[-1] == "['bentos/classifier/service.py', 'net/own.py']"


def test_what_can_be_read_is_not_told_of(project: Path) -> None:
    (project / "net" / "locked.py").chmod(0o644)
    assert ask(LIST, project).stdout.splitlines()[0] == "[]"
    assert "left out" not in ask(LAY_OUT, project).stderr
