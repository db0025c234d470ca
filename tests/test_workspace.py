from __future__ import annotations

from pathlib import Path

import pytest
from dvc.repo import Repo

from fettle import workspace
from fettle.errors import ParamsError
from fettle.local_settings import local_settings, set_local
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
    with Repo(str(place.tree)) as repo:
        assert Path(repo.cache.local.path).is_relative_to(project.root / ".dvc" / "cache")


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
        f"no params file at {project.root / 'no.yaml'}. Fix: name an existing file (see examples/)."
    )


def test_a_wrong_set_leaves_no_workspace_behind(project: Project) -> None:
    with pytest.raises(ParamsError):
        workspace.prepare(project, None, ["seed=-1"])
    assert not (project.root / ".fettle" / "ws").exists()


def named(project: Project, name: str, *overrides: str) -> str:
    file = project.root / name
    file.parent.mkdir(exist_ok=True)
    file.write_text((ROOT / "params.yaml").read_text())
    return workspace.prepare(project, file, overrides).tree.name


def test_every_params_file_has_a_workspace_of_its_own(project: Project) -> None:
    files = ["photos.yaml", "Photos.yaml", "photos.yml", "a/photos.yaml", "b/photos.yaml"]
    files += ["参数.yaml", "опыт.yaml", "---.yaml", "___.yaml", ".yaml", "größe.yaml", "gr-e.yaml"]
    files += [f"{'long ' * 40}{end}.yaml" for end in "ab"]
    names = [named(project, file) for file in files]
    assert len(set(names)) == len(files)
    assert all(name and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in names)
    assert names[0] == "photos"
    assert max(map(len, names)) < 64
    assert names == [named(project, file) for file in files]


def test_a_params_file_without_a_latin_letter_leaves_other_workspaces_alone(
    project: Project,
) -> None:
    earlier = project.state / "ws" / "photos" / "artifacts" / "finetune" / "model.onnx"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("work of an earlier run")
    file = project.root / "参数.yaml"
    file.write_text((ROOT / "params.yaml").read_text())
    place = workspace.prepare(project, file, [])
    assert earlier.read_text() == "work of an earlier run"
    assert place.tree.parent == project.state / "ws"
    assert workspace.locate(project, file, []) == place


def test_a_plain_name_stays_with_the_file_that_took_it_first(project: Project) -> None:
    assert named(project, "b/photos.yaml") == "photos"
    assert named(project, "photos.yaml").startswith("photos-")
    assert named(project, "b/photos.yaml") == "photos"


@pytest.mark.parametrize(
    "folder", ["fruit #1", "a, b", "50% off", "Größe 3", "it's", 'a "b"', "${x}", "%(home)s", "a;b"]
)
def test_the_cache_is_the_project_s_own_below_any_folder(tmp_path: Path, folder: str) -> None:
    root = tmp_path / folder
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (root / name).write_text((ROOT / name).read_text())
    (root / ".dvc").mkdir()
    place = workspace.prepare(Project(root, root), None, ["seed=21"])
    with Repo(str(place.tree)) as repo:
        assert Path(repo.cache.local.path).is_relative_to(root / ".dvc" / "cache")
    assert [p.name for p in tmp_path.iterdir()] == [folder]


def write(root: Path, *paths: str, text: str = "x = 1\n") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_a_workspace_holds_code_and_settings_only(project: Project) -> None:
    root = project.root
    write(root, "venv/lib/a.py", "env/pyvenv.cfg", "env/lib/b.py", ".venv/c.py")
    write(root, "node_modules/m/d.py", "conda/conda-meta/history", "conda/lib/e.py")
    write(root, "data/photos/cat/notes.py", "data/photos/cat/1.jpg", "data/labels/1.txt")
    write(root, "data/photos.dvc", "sub/dvc.yaml", "weights.pt", "big.py", text="x" * 1_100_000)
    write(root, "net.py", "nets/layers.py", "nets/classes.txt", "bentos/classifier/page.svg")
    place = workspace.prepare(project, None, ["ingest.source=image_folder", PATH])
    found = {p.relative_to(place.tree).as_posix() for p in place.tree.rglob("*") if p.is_file()}
    sources = {name for name in found if name[:2] not in (".d", ".f")}
    assert sources == {
        "params.yaml",
        "dvc.yaml",
        "net.py",
        "nets/layers.py",
        "nets/classes.txt",
        "bentos/classifier/page.svg",
        "stages/own.py",
    }


PATH = "ingest.options={path: data/photos}"


def test_what_an_older_workspace_copied_is_cleared_away(project: Project) -> None:
    place = workspace.prepare(project, None, ["seed=6"])
    write(place.tree, "venv/lib/a.py", "data/photos/1.jpg")
    write(place.tree, "artifacts/ingest/x", "records/r.json")
    workspace.prepare(project, None, ["seed=6"])
    assert not (place.tree / "venv").exists()
    assert not (place.tree / "data").exists()
    assert (place.tree / "artifacts" / "ingest" / "x").is_file()
    assert (place.tree / "records" / "r.json").is_file()


def test_data_named_by_the_set_is_taken_and_not_the_project_s(project: Project) -> None:
    set_local(project.root, "data", project.root / "old")
    place = workspace.prepare(
        project, None, ["ingest.source=image_folder", "ingest.options.path=new"]
    )
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
