from __future__ import annotations

import os
from pathlib import Path

import pytest

from fettle import params, project
from fettle.errors import BusyError, ProjectError

ROOT = Path(__file__).resolve().parent.parent


def test_a_folder_without_a_project_says_what_is_missing_and_how_to_make_one(
    tmp_path: Path,
) -> None:
    with pytest.raises(ProjectError) as caught:
        project.find(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is no fettle project: got no params.yaml and no dvc.yaml; fettle works on the "
        "project in the current folder. Fix: cd into a project, or make one with "
        "`fettle init DIR --data PHOTOS`."
    )


def test_the_second_run_is_told_which_process_holds_the_work(tmp_path: Path) -> None:
    here = project.Project(tmp_path, tmp_path)
    with (
        project.hold(here, "fettle run"),
        pytest.raises(BusyError) as caught,
        project.hold(here, "fettle run --force"),
    ):
        pass
    text = str(caught.value)
    assert f"got process {os.getpid()} (`fettle run`, since 20" in text
    assert text.endswith("Fix: wait for it, or stop that process and run again.")
    with project.hold(here, "fettle run"):  # and it is free again
        pass


def test_inputs_are_written_once_and_left_alone_while_nothing_changes(tmp_path: Path) -> None:
    here = project.Project(tmp_path, tmp_path)
    settings = params.load(ROOT / "params.yaml")
    project.refresh_inputs(here, settings)
    files = sorted(p.name for p in (tmp_path / "inputs").iterdir())
    assert files == ["code", "machine.json", "model.json", "source.json"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "inputs").rglob("*")}
    assert len(before) > 15
    project.refresh_inputs(here, settings)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "inputs").rglob("*")}


def test_every_child_process_is_told_to_stay_quiet(tmp_path: Path) -> None:
    told = project.environment(project.Project(tmp_path, tmp_path))
    assert told["DO_NOT_TRACK"] == "true"  # MLflow takes no other word
    assert told["PREFECT_HOME"] == str(tmp_path / ".fettle" / "prefect")
    assert {"DVC_NO_ANALYTICS", "GX_ANALYTICS_ENABLED", "BENTOML_DO_NOT_TRACK"} <= told.keys()
