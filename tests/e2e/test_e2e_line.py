"""The whole line on a few hundred digits, as a user with an empty home runs it."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from importlib import resources

import jsonschema
import pytest
from box import Box
from box_processes import states

from fettle import manifest

pytestmark = pytest.mark.e2e  # what runs the flow again is in test_e2e_reruns.py
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
    schema = resources.files("fettle.report").joinpath("schema.json").read_text()
    jsonschema.validate(doc, json.loads(schema))
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


def test_no_tool_speaks_among_the_lines_of_a_run(
    first_run: subprocess.CompletedProcess[str],
) -> None:
    assert "dvc.lock" not in first_run.stdout + first_run.stderr


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
