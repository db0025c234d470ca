"""Crash recovery: `recover(project)` mends what a killed `fettle run` left behind.

| what dies | what it leaves | what mends it |
|---|---|---|
| a stage's process | its log, its checkpoint | not here: the stage goes on from its checkpoint |
| `fettle run` | its stages' processes | not here: they end with it (fettle/process_lifetime.py) |
| `fettle run` | the project's lock | not here: the kernel frees it on any death |
| DVC in a stage | path locks of a dead process | removed here |
| DVC in a write | half a dvc.lock | set aside here; the run-cache brings the finished stages back |
| `fettle run` | its runs, "running" in MLflow | closed here as killed |
| `fettle run` | its flow run, "running" in Prefect | marked here as crashed, by `flow_runs` |

The caller holds the project, so any other open run of it is dead. The servers may be a team's: an
open run there is ended only if it is this project's, of this machine, and its process is gone
(fettle/adapters/run_identity.py). Prefect is known to flows/ alone: flows/prefect_recovery.py is
handed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from fettle.adapters import run_identity
from fettle.adapters.dvc_graph import load
from fettle.adapters.mlflow_client import close_killed_runs
from fettle.errors import ProjectError
from fettle.project import Project


def recover(project: Project, *, flow_runs: Callable[[], int] | None = None) -> list[str]:
    """Mend what a killed run can leave behind; return what was done, a line each.

    `flow_runs` marks Prefect's open runs as crashed and says how many there were. None before the
    servers are asked for: then only what DVC needs is mended.
    """
    done = recover_dvc(project.tree)
    if flow_runs is not None:
        told = {
            "MLflow": close_killed_runs(
                project.tracking_uri, run_identity.of_this_process(project)
            ),
            "Prefect": flow_runs(),
        }
        done += [
            f"{count} run{'s' if count > 1 else ''} left open in {who}, ended as killed"
            for who, count in told.items()
            if count
        ]
    return done


def recover_dvc(tree: Path) -> list[str]:
    """Mend what DVC cannot go on with; return what was done, a line each.

    A plain `dvc repro` writes dvc.lock in place, so a kill may leave half of it. It is set aside:
    the run-cache knows every finished stage by its inputs and brings it back without running it.
    """
    done = ["a lock of a dead process was removed"] if clear_dead_locks(tree) else []
    (tree / ".fettle").mkdir(exist_ok=True)
    try:
        load(tree)
    except ProjectError as err:
        lock = tree / "dvc.lock"
        if "dvc.lock" not in str(err) or not lock.is_file():
            raise
        lock.replace(tree / ".fettle" / "dvc.lock.broken")
        load(tree)
        done.append("a half-written dvc.lock was set aside; the cache has the finished stages")
    return done


def clear_dead_locks(tree: Path) -> bool:
    """Remove DVC's path locks when no process behind them lives; True if one was removed.

    DVC drops a lock whose process is gone, but not one of a zombie, nor an empty or broken file
    left by a crash.
    """
    path = tree / ".dvc" / "tmp" / "rwlock"
    if not path.is_file():
        return False
    try:
        pids = list(_pids(json.loads(path.read_text())))
    except ValueError:
        pids = [0]  # broken: nobody holds it
    if not pids or any(_lives(pid) for pid in pids):
        return False
    path.unlink()
    return True


def _pids(node: object) -> Iterator[int]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "pid":
                yield int(value)
            else:
                yield from _pids(value)
    elif isinstance(node, list):
        for value in node:
            yield from _pids(value)


def _lives(pid: int) -> bool:
    try:
        return pid > 0 and bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
