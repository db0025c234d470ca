"""A clone of a project takes the model from a DVC remote, byte for byte, and trains nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from box import Box

pytestmark = [pytest.mark.e2e, pytest.mark.flows]
Finished = subprocess.CompletedProcess[str]
LEFT_BEHIND = shutil.ignore_patterns(".fettle", "inputs", "records", "report", "releases")
MODELS = ("compress/model.onnx", "finetune/model.safetensors", "package/release/release.json")


@dataclass(frozen=True)
class Clone:
    """The project as it was pushed, and a clone of it after `dvc pull`."""

    origin: Path
    box: Box

    def shell(self, *words: str) -> Finished:
        return run(self.box, self.box.project, *words)

    def plan(self, photos: Path, *, cores: int | None = None) -> dict[str, str]:
        """Return {stage: what `fettle run` would do}, on a machine of so many cores."""
        words = self.box.command("run", "--dry-run", "--json", "--data", str(photos))
        few = {min(os.sched_getaffinity(0))} if cores == 1 else None
        done = subprocess.run(
            words,
            cwd=self.box.project,
            env=self.box.environment(),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=(lambda: os.sched_setaffinity(0, few)) if few else None,
        )
        assert done.returncode == 0, done.stderr
        return {row["name"]: row["will"] for row in json.loads(done.stdout)["stages"]}


def run(box: Box, folder: Path, *words: str) -> Finished:
    done = subprocess.run(
        words, cwd=folder, env=box.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def clone(
    first_run: Finished, box: Box, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Clone:
    """Commit the project with its dvc.lock, push to a remote on disk, clone and pull."""
    del first_run
    away = tmp_path_factory.mktemp("away")
    origin = away / "origin"
    shutil.copytree(box.project, origin, ignore=LEFT_BEHIND, symlinks=True)
    (origin / ".dvc" / "config.local").unlink(missing_ok=True)  # the project now lies in git
    git = ("git", "-c", "user.name=n", "-c", "user.email=n@localhost")
    run(box, origin, "git", "init", "--quiet")
    run(
        box,
        origin,
        sys.executable,
        "-m",
        "dvc",
        "remote",
        "add",
        "-d",
        "store",
        str(away / "store"),
    )
    run(box, origin, "git", "add", "--all")
    run(box, origin, *git, "commit", "--quiet", "--message", "A release")
    run(box, origin, sys.executable, "-m", "dvc", "push", "--quiet")
    run(box, away, "git", "clone", "--quiet", str(origin), "clone")
    made = Clone(origin, Box(box.home, away / "clone"))
    made.shell(sys.executable, "-m", "dvc", "pull", "--quiet")
    return made


def test_the_lock_is_tracked_and_what_it_stands_for_is_not(clone: Clone) -> None:
    tracked = clone.shell("git", "ls-files").stdout.split()
    assert "dvc.lock" in tracked
    assert not [name for name in tracked if name.startswith(("artifacts", "inputs", "records"))]


@pytest.mark.parametrize("file", MODELS)
def test_a_pull_brings_the_model_back_byte_for_byte(clone: Clone, file: str) -> None:
    pulled = clone.box.project / "artifacts" / file
    assert pulled.read_bytes() == (clone.origin / "artifacts" / file).read_bytes()


def test_after_a_pull_no_stage_is_left_to_run_and_the_clone_is_clean(
    clone: Clone, photos: Path
) -> None:
    will = clone.plan(photos)
    assert len(will) == 12
    assert set(will.values()) == {"keep"}
    done = clone.shell(sys.executable, "-m", "dvc", "repro")
    assert done.stdout.count("didn't change, skipping") == 12
    assert clone.shell("git", "status", "--porcelain").stdout == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's core masks")
def test_another_machine_measures_anew_and_trains_nothing(clone: Clone, photos: Path) -> None:
    will = clone.plan(photos, cores=1)
    assert {name for name, what in will.items() if what == "run"} == {
        "latency_table",
        "evaluate@x86_ort_fp32",
        "evaluate@x86_ort_int8",
    }
    assert will["finetune"] == "keep"


def test_dvc_compares_the_metrics_of_two_commits(clone: Clone) -> None:
    said = clone.shell(sys.executable, "-m", "dvc", "metrics", "diff", "--all", "HEAD").stdout
    assert "artifacts/verdict/metrics.json" in said
    assert "HEAD" in said
