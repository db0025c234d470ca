"""`fettle init` writes the very files of this repository, from a checkout and from a wheel."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from setuptools import Distribution

from fettle.cli import project_template

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import build_py  # noqa: E402  tools/ is a folder of scripts, not a package


@pytest.mark.parametrize(
    ("name", "source"),
    [("params.yaml", "params.yaml"), ("dvc.yaml", "dvc.yaml"), ("bentos", "bentos")],
)
def test_a_new_project_starts_from_the_very_files_of_this_one(
    name: str, source: str, tmp_path: Path
) -> None:
    project_template.write_project(tmp_path / "new", photos=False)
    assert contents(tmp_path / "new" / name) == contents(ROOT / source)


def test_a_project_of_photos_starts_from_the_example(tmp_path: Path) -> None:
    project_template.write_project(tmp_path / "new", photos=True)
    made = (tmp_path / "new" / "params.yaml").read_bytes()
    assert made == (ROOT / "examples" / "photos.yaml").read_bytes()


def test_no_copy_and_no_link_of_them_lies_in_the_tree() -> None:
    found = {path.name for path in (ROOT / "fettle" / "cli" / "template").iterdir()}
    assert found == {"ci.yml", "gitlab.yml"}


def test_what_a_checkout_finds_is_what_a_wheel_carries(tmp_path: Path) -> None:
    command = build_py.BuildPy(Distribution({"packages": []}))
    command.build_lib = str(tmp_path)
    copies = {
        target.relative_to(tmp_path / "fettle/cli/template") for _, target in command._copies()
    }
    names = {path.parts[0] for path in copies}
    assert names | {"ci.yml", "gitlab.yml"} == set(project_template.IN_CHECKOUT)
    assert all(source.is_file() for source, _ in command._copies())
    assert Path("bentos/classifier/service.py") in copies


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    kept = [file for file in files if file.is_file() and "__pycache__" not in file.parts]
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in kept}
