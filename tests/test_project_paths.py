"""What `--data` and `--model` are kept for, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_photos
from tiny_project import settings

from fettle.errors import DataError, ModelError
from fettle.local_settings import local_settings
from fettle.project import Project, overridden, refresh_inputs, remember

PHOTOS = ("ingest.source=image_folder", "ingest.options={path: photos}")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FETTLE_ROOT", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_data_given_over_a_named_path_is_kept_and_told(tmp_path: Path) -> None:
    data = tiny_photos.fill(tmp_path / "mine", ["cat", "dog"], 1)
    remember(tmp_path, settings(*PHOTOS), data=data, model=None)
    assert local_settings(tmp_path) == {"data": str(data), "data_instead_of": "photos"}
    assert overridden(tmp_path, settings(*PHOTOS)) == [
        f"data: {data}, by inputs/local.yaml instead of ingest.options.path 'photos'"
    ]


def test_data_that_is_not_there_or_not_taken_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        remember(tmp_path, settings(*PHOTOS), data=tmp_path / "gone", model=None)
    assert str(caught.value) == (
        f"there is no data at {tmp_path / 'gone'}. Fix: give --data what is there."
    )
    with pytest.raises(DataError) as caught:
        remember(tmp_path, settings(), data=tmp_path, model=None)
    assert str(caught.value) == (
        f"--data is not taken by the source digits: got {tmp_path}; it brings its own. Fix: leave "
        "--data out, or name another in params.yaml: ingest.source."
    )
    with pytest.raises(ModelError, match=r"^--model is not taken by the family "):
        remember(tmp_path, settings(), data=None, model=tmp_path)
    assert local_settings(tmp_path) == {}


def test_remembered_data_that_is_gone_names_the_file_that_remembers_it(tmp_path: Path) -> None:
    data = tiny_photos.fill(tmp_path / "mine", ["cat", "dog"], 1)
    params = settings("ingest.source=image_folder")
    remember(tmp_path, params, data=data, model=None)
    data.rename(tmp_path / "moved")
    with pytest.raises(DataError) as caught:
        refresh_inputs(Project(tmp_path, tmp_path), params)
    assert str(caught.value) == (
        f"there is no data at {data}: got data: {data} in {tmp_path}/inputs/local.yaml; `--data` "
        "wrote it there. Fix: name where it lies now with `fettle run --data PATH`, or delete that "
        "line."
    )


HOME = "; ~ is the home folder of who runs this, ~NAME that of the user NAME. Fix: write the path "
HOME += "out, or put ./ before a folder whose name begins with ~."


def test_the_home_of_nobody_known_is_no_path_of_data(tmp_path: Path) -> None:
    params = settings(PHOTOS[0], "ingest.options={path: ~no-such-user/photos}")
    with pytest.raises(DataError) as caught:
        refresh_inputs(Project(tmp_path, tmp_path), params)
    assert str(caught.value) == (
        "the path of the data begins with a home folder that is not here: got "
        f"~no-such-user/photos{HOME}"
    )


def test_the_home_of_nobody_known_is_no_other_path_than_data_that_was_given(
    tmp_path: Path,
) -> None:
    data = tiny_photos.fill(tmp_path / "mine", ["cat", "dog"], 1)
    remember(tmp_path, settings(PHOTOS[0]), data=data, model=None)
    params = settings(PHOTOS[0], "ingest.options={path: ~no-such-user/photos}")
    with pytest.raises(DataError, match=r"^the path of the data begins with a home folder"):
        refresh_inputs(Project(tmp_path, tmp_path), params)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("onnx_file", "{path: ~no-such-user/m.onnx}"),
        ("torch_module", "{entry: 'net:build', weights: ~no-such-user/m.pt}"),
    ],
)
def test_the_home_of_nobody_known_is_no_path_of_a_model(
    tmp_path: Path, family: str, options: str
) -> None:
    params = settings(
        f"finetune.family={family}", f"finetune.options={options}", "compress.recipe=[]"
    )
    with pytest.raises(ModelError) as caught:
        refresh_inputs(Project(tmp_path, tmp_path), params)
    text = str(caught.value)
    assert text.startswith("the path of the model begins with a home folder that is not here: got ")
    assert text.endswith(HOME)


def test_links_in_a_circle_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(tmp_path / "again")
    (tmp_path / "again").symlink_to(tmp_path / "photos")
    with pytest.raises(DataError) as caught:
        refresh_inputs(Project(tmp_path, tmp_path), settings(*PHOTOS))
    assert str(caught.value) == (
        "the path of the data leads in a circle: got photos; a symbolic link on it points back at "
        "itself. Fix: mend the link, or name what it should lead to."
    )
