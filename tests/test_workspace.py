from __future__ import annotations

from pathlib import Path

import pytest

from fettle import workspace
from fettle.errors import ParamsError
from fettle.local import local_settings, set_local
from fettle.project import Project

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "own.py").write_text("x = 1\n")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "big").write_text("not a source")
    return Project(tmp_path, tmp_path)


def test_without_params_or_sets_the_project_runs_in_its_own_folder(project: Project) -> None:
    assert workspace.prepare(project, None, []) is project


def test_a_set_runs_beside_the_project_and_touches_none_of_its_files(project: Project) -> None:
    before = (project.root / "params.yaml").read_text()
    place = workspace.prepare(project, None, ["finetune.epochs_max=3"])
    assert (project.root / "params.yaml").read_text() == before
    assert "epochs_max: 3" in (place.tree / "params.yaml").read_text()
    assert place.tree.is_relative_to(project.root / ".fettle" / "ws")
    assert (place.tree / "stages" / "own.py").read_text() == "x = 1\n"
    assert not (place.tree / "artifacts").exists()
    assert f"dir = {project.root / '.dvc' / 'cache'}" in (place.tree / ".dvc/config").read_text()


def test_the_same_request_finds_the_same_workspace_and_follows_edits(project: Project) -> None:
    first = workspace.prepare(project, None, ["seed=3"])
    (first.tree / "artifacts").mkdir()
    (first.tree / "dvc.lock").write_text("kept")
    (project.root / "stages" / "own.py").unlink()
    (project.root / "stages" / "new.py").write_text("")
    again = workspace.prepare(project, None, ["seed=3"])
    assert again == first == workspace.locate(project, None, ["seed=3"])
    assert sorted(p.name for p in (again.tree / "stages").iterdir()) == ["new.py"]
    assert (again.tree / "dvc.lock").read_text() == "kept"
    assert workspace.prepare(project, None, ["seed=4"]) != first


def test_a_workspace_knows_where_the_project_s_data_lies(project: Project) -> None:
    set_local(project.root, "data", project.root / "photos")
    place = workspace.prepare(project, None, ["seed=5"])
    assert local_settings(place.tree) == {"data": str(project.root / "photos")}


def test_a_params_file_names_its_workspace(project: Project) -> None:
    file = project.root / "Fashion MNIST.yaml"
    file.write_text((ROOT / "params.yaml").read_text())
    assert workspace.prepare(project, file, []).tree.name == "fashion-mnist"


def test_a_missing_params_file_is_named(project: Project) -> None:
    with pytest.raises(ParamsError) as caught:
        workspace.prepare(project, project.root / "no.yaml", [])
    assert str(caught.value) == (
        f"no params file at {project.root / 'no.yaml'}. "
        "Fix: give --params an existing file (see examples/)."
    )


def test_a_wrong_set_leaves_no_workspace_behind(project: Project) -> None:
    with pytest.raises(ParamsError):
        workspace.prepare(project, None, ["seed=-1"])
    assert not (project.root / ".fettle" / "ws").exists()


def test_data_named_by_the_set_is_taken_and_not_the_project_s(project: Project) -> None:
    set_local(project.root, "data", project.root / "old")
    place = workspace.prepare(project, None, ["ingest.options.path=new"])
    assert local_settings(place.tree) == {}


def test_a_workspace_follows_the_project_to_other_data_but_keeps_its_own(project: Project) -> None:
    set_local(project.root, "data", project.root / "old")
    workspace.prepare(project, None, ["seed=5"])
    set_local(project.root, "data", project.root / "new")
    place = workspace.prepare(project, None, ["seed=5"])
    assert local_settings(place.tree) == {"data": str(project.root / "new")}
    set_local(place.tree, "data", project.root / "own")
    workspace.prepare(project, None, ["seed=5"])
    assert local_settings(place.tree) == {"data": str(project.root / "own")}
