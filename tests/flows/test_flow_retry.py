"""A transient fault of a stage is retried with back-off; a user's error is told at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fettle import manifest
from fettle.project import QUIET
from flows.release import RETRIES

pytestmark = pytest.mark.flows

ROOT = Path(__file__).resolve().parents[2]

# A stage as every other, run by stages/__main__.py; each call leaves its mark.
STAGE = """
import errno, os, time
from pathlib import Path
from fettle.errors import DataError
from fettle.manifest import UnreadFacts
from fettle.stage_contract import Outputs

READS, SECTIONS, MEASURES = (), ("seed",), False
FAULTS = {faults!r}

def run(params, inputs, out, recorder):
    marks = Path("{name}.attempts")
    before = marks.read_text().splitlines() if marks.is_file() else []
    marks.write_text("\\n".join([*before, str(time.time())]))
    (out / "half.txt").write_text("half")
    if len(before) < FAULTS:
        {fault}
    return Outputs(facts=UnreadFacts({{"attempt": len(before) + 1}}))
"""
ENTRY = """
import sys, importlib
import stages.__main__ as entry
name = sys.argv[1]
sys.path.insert(0, ".")
sys.modules[f"stages.{name}"] = importlib.import_module(f"{name}_stage")
sys.exit(entry.main([name]))
"""
FULL = 'raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "half.txt")'
WRONG = 'raise DataError("the photos are gone", fix="put them back")'
STAGES = {
    "heals": (RETRIES, FULL),
    "hopeless": (99, FULL),
    "mistaken": (99, WRONG),
}
FLOW = """
import json, sys
from pathlib import Path
from prefect import flow
from prefect.testing.utilities import prefect_test_harness
from fettle.adapters import dvc_graph
from fettle.adapters.mlflow_tracking import Tracker
from fettle.project import Project
from flows import release

def main():
    tree = Path.cwd()
    stages, stale = dvc_graph.stale(tree)
    tracker = Tracker(f"sqlite:///{tree / 'mlflow.db'}", tree / "mlflow", "retry")
    tracker.start("retry", {"seed": 1}, {})
    parent = dvc_graph.warm_parent()
    run = release.ReleaseRun(Project(tree, tree), False, stages, stale, tracker, parent)
    release._current.append(run)

    @flow
    def retried():
        release._run_stages(stages)

    failure = None
    try:
        retried()
    except Exception as err:
        failure = [type(err).__name__, str(err)]
    run.settle()
    run.writer.shutdown()
    done = {name: one.outcome for name, one in run.done.items()}
    Path("result.json").write_text(json.dumps({"failure": failure, "done": done}))

if __name__ == "__main__":
    with prefect_test_harness():
        main()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project of three stages, run once by the flow's own tasks."""
    tree = tmp_path_factory.mktemp("retry")
    (tree / ".dvc").mkdir()
    (tree / ".dvc" / "config").write_text("[core]\n no_scm = true\n analytics = false\n")
    shutil.copy(ROOT / "params.yaml", tree)
    (tree / "enter.py").write_text(ENTRY)
    (tree / "source.txt").write_text("data")
    text = "stages:\n"
    for name, (faults, fault) in STAGES.items():
        (tree / f"{name}_stage.py").write_text(STAGE.format(name=name, faults=faults, fault=fault))
        text += f"  {name}:\n    cmd: {sys.executable} enter.py {name}\n"
        text += f"    deps: [source.txt]\n    outs: [artifacts/{name}]\n"
    (tree / "dvc.yaml").write_text(text)
    (tree / "flow.py").write_text(FLOW)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        **QUIET,
        "PREFECT_HOME": str(tree / "prefect"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "flow.py"],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert (tree / "result.json").is_file(), done.stdout[-2000:] + done.stderr[-3000:]
    return tree


def result(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "result.json").read_text())
    return found


def attempts(project: Path, name: str) -> list[float]:
    return [float(line) for line in (project / f"{name}.attempts").read_text().splitlines()]


def test_a_stage_that_fails_transiently_twice_is_retried_and_succeeds(project: Path) -> None:
    assert len(attempts(project, "heals")) == 3
    assert result(project)["done"] == {"heals": "ran"}
    assert manifest.read(project / "artifacts" / "heals").facts == {"attempt": 3}


def test_each_retry_waits_longer_than_the_one_before(project: Path) -> None:
    first, second, third = attempts(project, "heals")
    assert second - first >= 2
    assert third - second >= 4


def test_a_fault_that_stays_ends_after_the_last_retry(project: Path) -> None:
    assert len(attempts(project, "hopeless")) == 1 + RETRIES
    told = json.loads((project / "records" / "hopeless.error.json").read_text())
    assert told["kind"] == "transient"
    assert told["text"].startswith("the disk is full: got OSError: [Errno 28] No space left")
    assert not (project / "artifacts" / "hopeless").exists()


def test_a_user_s_error_is_not_retried(project: Path) -> None:
    assert len(attempts(project, "mistaken")) == 1
    told = json.loads((project / "records" / "mistaken.error.json").read_text())
    assert told == {"kind": "user", "text": "the photos are gone. Fix: put them back."}


def test_the_flow_ends_with_a_failed_stage_s_own_words(project: Path) -> None:
    records = [project / "records" / f"{name}.error.json" for name in ("hopeless", "mistaken")]
    told = [json.loads(path.read_text())["text"] for path in records]
    assert result(project)["failure"][1] in told
