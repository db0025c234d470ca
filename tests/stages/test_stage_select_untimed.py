"""Select, of targets that are never timed: judged by their answers, never chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_project import TinyProject, settings

from fettle.errors import TargetError
from fettle.facts.select_facts import CHOICE, ChoiceDocument
from fettle.measure import Measure
from fettle.recorder import MemoryRecorder
from stages import select

HERE, BOARD = "x86_ort_fp32", "arm64_ort_int8"
SIZE = Measure(value=700, unit="bytes", n=1)
SPEED = Measure(value=3.0, unit="x", n=20, low=2.9, high=3.1)


def sealed(project: TinyProject, target: str, *, n: int, lost: int = 0, **said: Any) -> None:
    labels = np.arange(n) % 3
    right = np.eye(3, dtype=np.float32)[labels]
    wrong = right.copy()
    wrong[:lost] = np.roll(right[:lost], 1, axis=1)
    folder = project.folder(f"evaluate@{target}")
    answers = {"baseline": right, "candidate": wrong, "labels": labels}
    save_file(answers, folder / "answers.safetensors")
    facts = {"target": target, "verdict": "ship", "reason": "by parity", "size_bytes": 700}
    measures = {"size_bytes": SIZE}
    measures |= {"speedup": SPEED} if said["evidence"] == "measured" else {}
    project.seal(f"evaluate@{target}", facts={**facts, **said}, measures=measures)


def choose(project: TinyProject, *overrides: str) -> ChoiceDocument:
    figures = {name: Measure(value=9, unit="1", n=1) for name in ("params_after", "macs_after")}
    project.seal("compress", measures=figures)
    project.seal("validate", facts={"classes": {name: {"test": 300} for name in "abc"}})
    reads = ("compress", "validate", f"evaluate@{HERE}", f"evaluate@{BOARD}")
    out = project.folder("select")
    given = settings(f"targets=[{HERE}, {BOARD}]", *overrides)
    select.run(given, project.inputs(*reads), out, MemoryRecorder())
    return ChoiceDocument.read(out / CHOICE)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    project = TinyProject(tmp_path)
    sealed(project, HERE, n=720, evidence="measured")
    return project


def board(found: ChoiceDocument) -> tuple[str, str]:
    row = next(row for row in found.candidates if row.target == BOARD)
    return row.verdict, row.reason


def test_the_served_file_is_chosen_among_what_was_timed(project: TinyProject) -> None:
    sealed(project, BOARD, n=720, evidence="emulated")
    found = choose(project)
    assert found.target == HERE
    verdict, reason = board(found)
    assert verdict == "ship"
    assert reason.startswith("within the budget: the 95% upper bound of its drop in accuracy is 0.")


def test_what_loses_more_than_the_budget_is_refused(project: TinyProject) -> None:
    sealed(project, BOARD, n=720, lost=40, evidence="emulated")
    assert board(choose(project))[0] == "refused"


def test_too_few_images_are_inconclusive_unless_a_wider_budget_was_stated(
    project: TinyProject,
) -> None:
    sealed(project, BOARD, n=180, evidence="estimated")
    assert board(choose(project))[0] == "inconclusive"
    wider = f"evaluate.drop_max_of_target={{{BOARD}: 0.05}}"
    assert board(choose(project, wider))[0] == "ship"
    assert board(choose(project, "evaluate.accuracy_images_min=150"))[0] == "ship"


def test_a_limit_that_its_file_breaks_is_a_refusal(project: TinyProject) -> None:
    sealed(project, BOARD, n=720, evidence="emulated")
    broken = Measure(value=9_000_000, unit="bytes", n=1)
    facts = {"target": BOARD, "verdict": "ship", "reason": "by parity", "size_bytes": 9_000_000}
    project.seal(
        f"evaluate@{BOARD}",
        facts={**facts, "evidence": "emulated"},
        measures={"size_bytes": broken},
    )
    assert board(choose(project, "compress.constraints={size_bytes_max: 1000}")) == (
        "refused",
        "size_bytes is 9e+06, above compress.constraints.size_bytes_max 1,000",
    )


@pytest.mark.parametrize("verdict", ["compiled", "unavailable", "refused"])
def test_what_has_no_answers_keeps_what_evaluate_said(project: TinyProject, verdict: str) -> None:
    kind = "compile-only" if verdict == "compiled" else "not measured"
    sealed(project, BOARD, n=720, evidence=kind, verdict=verdict, reason="as it was said")
    assert board(choose(project)) == (verdict, "as it was said")


def test_a_target_that_is_never_timed_cannot_be_the_objective_s(project: TinyProject) -> None:
    sealed(project, BOARD, n=720, evidence="emulated")
    with pytest.raises(TargetError) as caught:
        choose(project, f"compress.objective.target={BOARD}")
    assert str(caught.value) == (
        "the target that compress.objective.target names is not timed here: got arm64_ort_int8, "
        "emulated; the served file is chosen among what is measured: x86_ort_fp32. Fix: set "
        "compress.objective.target to one of them or to null; arm64_ort_int8 ships beside it."
    )


def test_a_budget_of_a_target_that_is_not_asked_for_is_told(project: TinyProject) -> None:
    with pytest.raises(Exception, match=r"evaluate\.drop_max_of_target\.arm64_ort_int8: 'arm64_or"):
        settings(f"targets=[{HERE}]", f"evaluate.drop_max_of_target={{{BOARD}: 0.05}}")
