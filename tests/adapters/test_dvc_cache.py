"""What no lock, branch or tag names is unused, as `dvc gc` counts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fettle.adapters import dvc_cache

STAGE = "stages:\n  copy:\n    cmd: cp data out\n    deps: [data]\n    outs: [out]\n"


def run(root: Path, *words: str) -> None:
    command = [sys.executable, "-m", "dvc", *words] if words[0] != "git" else list(words)
    subprocess.run(command, cwd=root, check=True, capture_output=True)


def make(root: Path, text: str) -> None:
    """Run the stage on this text."""
    (root / "data").write_text(text)
    run(root, "repro")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\nname = a\nemail = a@b\n")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(STAGE)
    return folder


def texts(paths: list[Path]) -> set[str]:
    return {path.read_text() for path in paths if "runs" not in path.parts}


def test_what_an_earlier_run_made_is_unused_once_it_is_old(root: Path) -> None:
    run(root, "init", "--no-scm", "-q")
    make(root, "one")
    make(root, "two")
    assert dvc_cache.unused([root], run_since_s=time.time() - 60) == []  # the runs are young
    found = dvc_cache.unused([root], run_since_s=time.time() + 60)
    assert texts(found) == {"one"}
    for path in found:
        path.unlink()
    (root / "out").unlink()
    run(root, "checkout")
    assert (root / "out").read_text() == "two"


def test_what_a_workspace_names_is_used(root: Path) -> None:
    run(root, "init", "--no-scm", "-q")
    make(root, "one")
    workspace = root / "ws"
    workspace.mkdir()
    for name in ("dvc.yaml", "dvc.lock"):
        (workspace / name).write_bytes((root / name).read_bytes())
    (workspace / ".dvc").mkdir()
    cache = os.path.relpath(root / ".dvc" / "cache", workspace / ".dvc")
    (workspace / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n[cache]\n    dir = {cache}\n"
    )
    (workspace / ".dvcignore").touch()
    (root / ".dvcignore").write_text("ws\n")
    make(root, "two")
    later = time.time() + 60
    assert texts(dvc_cache.unused([root], run_since_s=later)) == {"one"}
    assert texts(dvc_cache.unused([root, workspace], run_since_s=later)) == set()


@pytest.mark.parametrize("ref", [("branch", "old"), ("tag", "-a", "-m", "old", "old")])
def test_what_a_branch_or_a_tag_names_is_used(root: Path, ref: tuple[str, ...]) -> None:
    run(root, "git", "init", "-q")
    run(root, "init", "-q")
    for text in ("one", "two", "three"):
        make(root, text)
        run(root, "git", "add", "-A")
        run(root, "git", "commit", "-qm", text)
        if text == "one":
            run(root, "git", *ref)
    found = dvc_cache.unused([root], run_since_s=time.time() + 60)
    assert texts(found) == {"two"}


def test_a_project_without_a_cache_has_nothing(tmp_path: Path) -> None:
    assert dvc_cache.unused([tmp_path], run_since_s=0) == []
