from __future__ import annotations

from pathlib import Path

import pytest

from fettle.cli.init import init
from fettle.cli.project_template import release_name
from fettle.params import load


@pytest.mark.parametrize("with_data", [True, False])
def test_the_release_is_named_after_the_new_project(
    with_data: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "Obst & Gemüse"
    init(folder, data=tmp_path if with_data else None)
    assert load(folder / "params.yaml").release.name == "obst-gemuse"
    assert "whose releases are named obst-gemuse; now: cd" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("fruit", "fruit"),
        ("Hands_v2", "hands_v2"),
        ("2026 fruit", "release-2026-fruit"),
        ("写真", "release"),
        ("-x-", "x"),
        ("null", "release-null"),
        ("a" * 62 + "-b", "a" * 62),
        ("1" * 70, "release-" + "1" * 55),
    ],
)
def test_any_folder_s_name_gives_one_that_the_params_take(
    folder: str, name: str, tmp_path: Path
) -> None:
    assert release_name(folder) == name
    init(tmp_path / folder)
    assert load(tmp_path / folder / "params.yaml").release.name == name
