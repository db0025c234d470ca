"""What a killed run leaves behind is mended, and nothing that lives is touched."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_graph

from fettle.adapters import crash_recovery, dvc_graph, run_identity
from fettle.adapters.mlflow_tracking import Tracker
from fettle.project import Project


def test_a_lock_is_cleared_only_when_nobody_living_holds_it(tree: Path) -> None:
    lock = tree / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(parents=True)
    held = {"a.txt": {"write": {"pid": os.getpid(), "cmd": "dvc"}}}
    lock.write_text(json.dumps(held))
    assert not crash_recovery.clear_dead_locks(tree)
    assert lock.is_file()
    lock.write_text("")  # what a crash leaves
    assert crash_recovery.clear_dead_locks(tree)
    assert not lock.exists()


def test_a_half_written_lock_is_set_aside_and_the_cache_brings_the_stage_back(tree: Path) -> None:
    tiny_graph.run(tree, "first")
    whole = (tree / "dvc.lock").read_text()
    (tree / "dvc.lock").write_text(whole[: whole.index("params:")].rstrip() + "\n    - path:")
    assert crash_recovery.recover(Project(tree, tree)) == [
        "a half-written dvc.lock was set aside; the cache has the finished stages"
    ]
    _, stale = dvc_graph.stale(tree, look_in_cache=True)
    assert stale["first"].restorable
    assert crash_recovery.recover(Project(tree, tree)) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_runs_that_a_killed_run_left_open_are_ended_in_both_trackers(tree: Path) -> None:
    project = Project(tree, tree)
    project.state.mkdir(exist_ok=True)
    killed = replace(run_identity.of_this_process(project), process="0 1.00 an-earlier-boot/1")
    made = Tracker(project.tracking_uri, tree / "artifacts", "digits", identity=killed)
    made.start("digits", {}, {})
    asked = []
    assert crash_recovery.recover(project) == []  # without Prefect no run is judged
    assert crash_recovery.recover(project, flow_runs=lambda: asked.append(1) or 2) == [
        "1 run left open in MLflow, ended as killed",
        "2 runs left open in Prefect, ended as killed",
    ]
    assert asked == [1]
    assert crash_recovery.recover(project, flow_runs=lambda: 0) == []
