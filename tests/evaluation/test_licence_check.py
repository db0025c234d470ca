from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fettle import params
from fettle.cli.project_template import make_project
from fettle.errors import DataError, ModelError
from fettle.evaluation import licence_check
from fettle.params_schema import Licences

ROOT = Path(__file__).resolve().parents[2]


def settings(*overrides: str) -> params.Params:
    return params.load(ROOT / "params.yaml", overrides)


def test_without_a_list_every_licence_is_taken_and_nothing_is_said(tmp_path: Path) -> None:
    assert licence_check.check(None, {"data": None, "model": "GPL-3.0-only"}) == []
    licence_check.refuse(tmp_path, settings())


def test_each_part_is_held_against_the_list_in_a_sentence() -> None:
    section = Licences(allow=["MIT", "CC0-1.0"])
    found = {"data": "CC0-1.0", "model": "Apache-2.0"}
    assert licence_check.check(section.allow, found) == [
        (True, "the data's licence CC0-1.0 is in verdict.licences.allow (MIT, CC0-1.0)"),
        (
            False,
            "the model's licence is Apache-2.0, which is not in verdict.licences.allow (MIT, "
            "CC0-1.0)",
        ),
    ]
    unstated = licence_check.check(section.allow, {"data": None})
    assert unstated[0][0] is False
    assert "licence is not stated, which is not in" in unstated[0][1]


def test_what_the_params_state_goes_before_what_the_plug_in_does() -> None:
    section = Licences(data="MIT")
    assert licence_check.resolve(section, data=None, model="ISC") == {"data": "MIT", "model": "ISC"}
    assert licence_check.resolve(section, data="X", model=None) == {"data": "MIT", "model": None}


def test_data_that_is_not_allowed_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        licence_check.refuse(tmp_path, settings("verdict.licences.allow=[MIT, Apache-2.0]"))
    assert str(caught.value) == (
        "the data's licence is not in verdict.licences.allow: got CC-BY-4.0; a release is made of "
        "MIT, Apache-2.0 alone. Fix: take other data, or allow it."
    )


def test_a_model_whose_licence_nobody_states_is_refused_with_what_to_do(tmp_path: Path) -> None:
    given = (
        "verdict.licences.allow=[CC-BY-4.0]",
        "finetune.family=torch_module",
        "finetune.options={entry: 'net:build'}",
    )
    with pytest.raises(ModelError) as caught:
        licence_check.refuse(tmp_path, settings(*given))
    assert str(caught.value) == (
        "the model's licence is not in verdict.licences.allow: got not stated; a release is made "
        "of CC-BY-4.0 alone. Fix: put a file LICENSE beside the weights, or write it to "
        "verdict.licences.model."
    )
    licence_check.refuse(tmp_path, settings(*given, "verdict.licences.model=CC-BY-4.0"))


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["stage", "inputs"]])
def test_the_command_stops_before_any_stage(tmp_path: Path, command: list[str]) -> None:
    project = tmp_path / "project"
    make_project(project, data=None)
    text = (project / "params.yaml").read_text()
    assert "licences: {allow: null}" in text
    (project / "params.yaml").write_text(
        text.replace("licences: {allow: null}", "licences: {allow: [MIT]}")
    )
    done = subprocess.run(
        [sys.executable, "-m", "fettle.cli.main", *command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "the data's licence is not in verdict.licences.allow: got CC-BY-4.0" in done.stderr
    assert not (project / "artifacts").exists()
