"""A project's dvc.yaml of an earlier schema, beside its params."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from former_params import OLD, migrate

from fettle import params_migration
from fettle import project as projects
from fettle.adapters import dvc_graph
from fettle.errors import ProjectError


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the old file to be params.yaml of the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copy(OLD, tmp_path / "params.yaml"))


FORMER_GRAPH = """\
stages:
  validate:
    cmd: fettle stage validate
    params: [validate, compress.also, targets]   # compress.also too
  select:
    matrix: {target: [x]}
    cmd: fettle stage select
    params:
      - 'compress.also.macs_max'
      - params.yaml: [compress.objective.on, seed]
      - other.yaml: [compress.also]
"""


def test_a_graph_with_a_former_key_is_refused_before_dvc_misses_it(old: Path) -> None:
    graph = old.with_name("dvc.yaml")
    graph.write_text(FORMER_GRAPH)
    with pytest.raises(ProjectError) as caught:
        dvc_graph.load(old.parent)
    assert str(caught.value) == (
        f"{graph} was written by an earlier fettle: got compress.also among a stage's params, in "
        "line 4; compress.also is now compress.constraints. Fix: run `fettle migrate` in "
        f"{old.parent}, which rewrites params.yaml and dvc.yaml."
    )


def test_a_graph_goes_with_its_params(old: Path) -> None:
    graph = old.with_name("dvc.yaml")
    graph.write_text(FORMER_GRAPH)
    assert migrate().splitlines()[-3:] == [
        "dvc.yaml: line 4: compress.also is now compress.constraints",
        "dvc.yaml: line 9: compress.also is now compress.constraints",
        "dvc.yaml: line 10: compress.objective.on is now compress.objective.target",
    ]
    assert graph.read_text().splitlines()[3:] == [
        "    params: [validate, compress.constraints, targets]   # compress.also too",
        "  select:",
        "    matrix: {target: [x]}",
        "    cmd: fettle stage select",
        "    params:",
        "      - 'compress.constraints.macs_max'",
        "      - params.yaml: [compress.objective.target, seed]",
        "      - other.yaml: [compress.also]",
    ]
    params_migration.refuse_former_graph(old.parent)


def test_what_asks_dvc_nothing_still_works_beside_such_a_graph(old: Path) -> None:
    old.with_name("dvc.yaml").write_text(FORMER_GRAPH)
    assert projects.find(old.parent).root == old.parent  # `fettle canary abort`, say
