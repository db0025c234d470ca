"""The whole line on a few hundred digits, as a user with an empty home runs it."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psutil
import pytest
from box import Box

from fettle import manifest

pytestmark = pytest.mark.e2e
STAGES = 12  # of dvc.yaml, with two targets
Finished = subprocess.CompletedProcess[str]
Edit = Callable[[dict[str, str]], None]


def test_a_run_ends_with_a_table_the_report_and_the_command_that_serves(
    first_run: Finished, box: Box
) -> None:
    text = first_run.stdout
    for word in ("x86_ort_fp32", "x86_ort_int8", "release ", "report   report/index.html"):
        assert word in text
    assert "serve    fettle serve" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    page = (box.project / "report" / "index.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")


def test_the_report_s_json_has_every_fact_ci_reads(first_run: Finished, box: Box) -> None:
    del first_run
    doc = box.report()
    assert doc["schema"] == "fettle.report/1"
    assert [s["name"] for s in doc["stages"]][:5] == [
        "ingest",
        "validate",
        "finetune",
        "latency_table",
        "compress",
    ]
    assert len(doc["stages"]) == STAGES
    assert doc["validation"]["rows"] == 400
    quality = doc["quality"]
    assert set(quality) >= {"metric", "float", "compressed", "drop", "metrics"}
    assert quality["float"]["n"] >= 90
    assert quality["float"]["value"] > 0.5  # ten classes: chance is 0.1
    assert quality["drop"]["low"] <= quality["drop"]["value"] <= quality["drop"]["high"]
    assert doc["compression"]["params_ratio"] > 1.5
    for target in doc["targets"]:
        assert target["verdict"] in ("ship", "refused")
        assert target["evidence"] == "measured"
        assert set(target["parity"]) >= {"cosine", "max_abs", "top1"}
        assert target["latency_ms"]["p50"] <= target["latency_ms"]["p99"]
    assert set(doc["release"]) >= {"bento", "model_version", "git", "data"}


def test_no_tool_tried_to_reach_beyond_this_machine(first_run: Finished, box: Box) -> None:
    del first_run
    code = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=0.01)"
    probe = [*box.command()[:1], "-c", code]  # a reserved address: nobody is there
    subprocess.run(probe, env=box.environment(), capture_output=True, check=False)
    seen = box.witness.read_text().splitlines()
    assert seen, "the witness saw not even our own attempt"
    assert [line for line in seen if "192.0.2.1" not in line] == []


def test_from_a_release_one_walks_back_to_the_data(first_run: Finished, box: Box) -> None:
    del first_run
    release = json.loads((box.project / ".fettle" / "last.json").read_text())["release"]
    folder = box.project / release["folder"]
    assert manifest.tree_digest(folder) == release["digest"]
    assert release["bento"] == f"{release['name']}:{release['digest'][:12]}"
    assert (box.home / "bentoml/bentos" / release["bento"].replace(":", "/")).is_dir()
    with sqlite3.connect(box.project / ".fettle" / "mlflow.db") as db:
        tags = dict(
            db.execute(
                "select key, value from model_version_tags where name = ? and version = ?",
                (release["name"], release["model_version"]),
            )
        )
        (run,) = db.execute(
            "select run_id from model_versions where name = ? and version = ?",
            (release["name"], release["model_version"]),
        ).fetchone()
        stages = dict(
            db.execute(
                "select key, value from tags where run_uuid = ? and key like 'stage.%'", (run,)
            )
        )
        alias = db.execute("select alias, version from registered_model_aliases").fetchall()
        shown = dict(db.execute("select key, value from metrics where run_uuid = ?", (run,)))
    source = json.loads((box.project / "inputs" / "source.json").read_text())
    quality, ratios = box.report()["quality"], box.report()["compression"]
    assert shown["accuracy.float"] == quality["float"]["value"]
    assert shown["accuracy.compressed"] == quality["compressed"]["value"]
    assert shown["params_ratio"] == ratios["params_ratio"]
    names = states(box, "prefect/prefect.db", "select name from flow_run")
    assert names == {release["name"]}
    assert tags["release_digest"] == release["digest"]
    assert tags["data"] == source["digest"]
    assert run == release["run_id"]
    assert len(stages) == STAGES  # every stage's own run is linked
    assert alias == [("challenger", int(release["model_version"]))]


def test_a_second_run_with_nothing_changed_prints_the_same_release(
    first_run: Finished, box: Box
) -> None:
    del first_run
    before = (box.project / ".fettle" / "last.json").read_text()
    done = box.fettle("run")
    assert done.returncode == 0, done.stderr
    assert "Nothing changed since" in done.stdout
    assert (box.project / ".fettle" / "last.json").read_text() == before


def test_a_run_with_nothing_changed_imports_neither_prefect_nor_mlflow(
    first_run: Finished, box: Box
) -> None:
    del first_run
    code = (
        "import sys; from fettle.cli.main import app\n"
        "try: app(['run'])\n"
        "except SystemExit: pass\n"
        "heavy = {'prefect', 'mlflow', 'torch', 'bentoml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    command = [*box.command()[:1], "-c", code]
    done = subprocess.run(
        command, cwd=box.project, env=box.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_why_names_the_parameter_and_a_set_touches_nothing(first_run: Finished, box: Box) -> None:
    del first_run
    lock = (box.project / "dvc.lock").read_text()
    done = box.fettle("why", "export@x86_ort_int8", "--set", "export.calibrate=entropy")
    assert "never run here" in done.stdout  # a workspace of its own
    assert box.fettle("why", "finetune").stdout == "finetune is unchanged: it would not run\n"
    assert (box.project / "dvc.lock").read_text() == lock


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


def test_an_artefact_edited_by_hand_is_refused_by_name(first_run: Finished, box: Box) -> None:
    del first_run
    box.fettle("run")  # back to the project's own params
    path = box.project / "artifacts" / "compress" / "model.onnx"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + b"!")
    try:
        done = box.fettle("run")
        assert done.returncode == 2
        assert f"{path} is changed: got " in done.stderr
        assert "the good copy comes from the cache" in done.stderr
    finally:
        path.write_bytes(good)


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


def test_a_failing_stage_says_why_and_keeps_the_last_good_artefact(
    first_run: Finished, box: Box, edit: Edit
) -> None:
    del first_run
    box.fettle("run")
    before = manifest.read(box.project / "artifacts" / "validate").digest
    edit({"validate.class_images_min": "5000"})
    done = box.fettle("run")
    assert done.returncode == 2
    assert "class_images_min" in done.stderr
    assert "Traceback" not in done.stderr
    assert manifest.read(box.project / "artifacts" / "validate").digest == before


def test_plain_dvc_gives_the_same_and_sees_nothing_to_do(first_run: Finished, box: Box) -> None:
    del first_run
    box.fettle("run")
    for words in (["repro"], ["metrics", "show"], ["dag"]):
        done = subprocess.run(
            ["dvc", *words],
            cwd=box.project,
            env=box.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        if words == ["repro"]:  # the first stage is always asked, and found all as it was
            assert [line for line in done.stdout.splitlines() if "Running stage" in line] == [
                "Running stage 'inputs':"
            ]


def states(box: Box, database: str, query: str) -> set[str]:
    with closing(sqlite3.connect(box.project / ".fettle" / database)) as db:
        return {row[0] for row in db.execute(query)}


def stage_process(box: Box, name: str) -> int | None:
    """Find the running process of a stage of this project: other tests may run the same stage."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if words[-2:] == ["stage", name] and process.info["cwd"] == str(box.project):
            return int(process.pid)
    return None


def zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_for(look: Callable[[], Any], seconds: float = 90) -> Any:  # Any: whatever is waited for
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return found
