"""A push to a real bare repository runs that commit, and leaves its report and its comment."""

from __future__ import annotations

from pathlib import Path

import pytest
from box import Box, set_params
from pushed import Pushed, git

from fettle.facts.lineage_document import LineageDocument
from fettle.release import lineage_record

pytestmark = [pytest.mark.flows, pytest.mark.slow]

SETTINGS = {
    "validate.class_images_min": "10",
    "preprocess.size_px": "16",
    "preprocess.channels": "1",
    "finetune.family": "small_cnn",
    "finetune.options": "{}",
    "finetune.epochs_head": "1",
    "finetune.epochs_max": "2",
    "finetune.learning_rate": "5e-3",
    "compress.recipe": "[{use: prune, keep_fraction: 0.5, steps: 1, recover_epochs: 1}]",
    "compress.budget.drop_max": "0.9",
    "verdict.class_drop_max": "null",
    "verdict.limits": "[]",
    "targets": "[x86_ort_fp32]",
    "evaluate.rounds": "20",
    "evaluate.parity_images": "40",
    "export.calibration_images": "64",
}


def test_a_push_becomes_a_run_of_its_commit_a_report_and_a_comment(tmp_path: Path) -> None:
    box = Box(tmp_path, tmp_path / "fruit")
    assert box.fettle("init", "fruit", cwd=tmp_path).returncode == 0
    set_params(box.project / "params.yaml", SETTINGS)
    pushed = Pushed(tmp_path, box.project)
    done = box.fettle("ci", "init", "--hook", str(pushed.bare))
    assert done.returncode == 0, done.stderr
    first = pushed.commit("the first")
    assert pushed.push(env=box.environment()) < 10
    ran = pushed.wait(first, 400)
    assert ran.state == "passed", pushed.comment(first)
    comment = pushed.comment(first)
    assert comment.startswith("<!-- fettle-report -->\n")
    assert f"- commit {first[:12]}" in comment
    assert f"- release fruit:{ran.release}" in comment
    kept = pushed.queue.home / "releases" / str(ran.release)
    assert box.fettle("verify", str(kept)).returncode == 0
    (made,) = LineageDocument.read(lineage_record.path_of(kept)).runs
    assert (made.git.commit, made.git.dirty) == (first, False)
    assert all(stage.digest and stage.run_id for stage in made.stages if stage.name != "inputs")

    set_params(box.project / "params.yaml", {"verdict.limits": "[{metric: accuracy, min: 0.01}]"})
    second = pushed.commit("a limit", "idea")
    pushed.push("idea", env=box.environment())
    again = pushed.wait(second, 200)
    assert again.state == "passed", pushed.comment(second)
    comment = pushed.comment(second)
    assert f"- commit {second[:12]}" in comment
    assert "is not shown to differ in accuracy from" in comment
    assert "- gate: accuracy is " in comment
    log = (pushed.queue.home / "logs" / f"{second}.log").read_text()
    assert "finetune                     restored" in log  # the cache is all pushes'
    assert (pushed.queue.home / "reports" / second / "index.html").is_file()
    assert git(pushed.bare, "worktree", "list").count("\n") == 0
    status = box.fettle("ci", "status", str(pushed.bare))
    assert [line.split()[1:3] for line in status.stdout.splitlines()[:2]] == [
        ["main", "passed"],
        ["idea", "passed"],
    ]
