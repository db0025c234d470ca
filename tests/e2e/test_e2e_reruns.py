"""The line again: after a change, a gate that holds, SIGTERM and `kill -9`. `make test-flows`."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest
from box import Box
from box_processes import stage_process, states, wait_for, zombie

pytestmark = [pytest.mark.e2e, pytest.mark.flows]
Finished = subprocess.CompletedProcess[str]
Edit = Callable[[dict[str, str]], None]


def test_only_what_a_change_touches_runs_again(first_run: Finished, box: Box, edit: Edit) -> None:
    del first_run
    edit({"compress.budget.drop_max": "0.4"})
    plan = json.loads(box.fettle("run", "--dry-run", "--json").stdout)["stages"]
    will = {row["name"]: row["will"] for row in plan}
    assert {n for n, w in will.items() if w == "run"} == {
        "validate",
        "compress",
        "select",
        "verdict",
    }
    assert will["package"] == "maybe"
    done = box.fettle("run")
    assert done.returncode == 0, done.stderr
    cached = {s["name"]: s["cached"] for s in box.report()["stages"]}
    assert not cached["verdict"]
    assert cached["finetune"]  # validate ran again and wrote the same bytes
    assert cached["evaluate@x86_ort_int8"]


def test_a_gate_that_does_not_pass_exits_with_2_and_the_reason(
    first_run: Finished, box: Box, edit: Edit
) -> None:
    del first_run
    edit({"verdict.limits": "[{metric: accuracy, min: 1.0}]"})
    done = box.fettle("run")
    assert done.returncode == 2
    assert "its gate did not pass, so it is no challenger: got " in done.stderr
    assert "accuracy" in done.stderr


def test_an_interrupted_run_stops_at_once_with_all_it_started(
    first_run: Finished, box: Box, edit: Edit
) -> None:
    del first_run
    edit({"finetune.weight_decay": "3e-4"})
    with subprocess.Popen(
        box.command("run"), cwd=box.project, env=box.environment(), stderr=subprocess.PIPE
    ) as run:
        stage = wait_for(lambda: stage_process(box, "finetune"))
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=20)
    assert run.returncode == 128 + signal.SIGTERM
    last = "stopped; the finished stages are kept, `fettle run` goes on from there\n"
    assert said.decode().endswith(last)
    wait_for(lambda: not psutil.pid_exists(stage) or zombie(stage), seconds=10)


def test_a_killed_run_leaves_no_orphan_and_the_next_one_repeats_only_that_stage(
    first_run: Finished, box: Box, edit: Edit
) -> None:
    del first_run
    edit({"finetune.weight_decay": "2e-4"})
    with subprocess.Popen(
        box.command("run"), cwd=box.project, env=box.environment(), stderr=subprocess.DEVNULL
    ) as run:
        stage = wait_for(lambda: stage_process(box, "finetune"))
        time.sleep(1)
        run.send_signal(signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(stage) or zombie(stage))
    done = box.fettle("run")
    assert done.returncode == 0, done.stderr
    cached = {s["name"]: s["cached"] for s in box.report()["stages"]}
    assert cached["ingest"]
    assert cached["validate"]
    assert not cached["finetune"]
    assert "KILLED" in states(box, "mlflow.db", "select status from runs")
    assert "RUNNING" not in states(box, "mlflow.db", "select status from runs")
    for table in ("flow_run", "task_run"):
        found = states(box, "prefect/prefect.db", f"select state_type from {table}")
        assert "CRASHED" in found
        assert not found & {"RUNNING", "PENDING"}
