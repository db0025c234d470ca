"""The paths of this machine: what wins, what is refused, and the words."""

from __future__ import annotations

from pathlib import Path

import pytest

from fettle.data.sources.image_folder import Params
from fettle.errors import ProjectError
from fettle.local_settings import local_settings, location, set_local


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FETTLE_ROOT", raising=False)


def test_data_that_the_params_name_since_is_refused_not_passed_over(tmp_path: Path) -> None:
    set_local(tmp_path, "data", tmp_path / "old")
    with pytest.raises(ProjectError) as caught:
        location(tmp_path, Params(path="new"))
    assert str(caught.value) == (
        f"two places name the data: got inputs/local.yaml says {tmp_path}/old, ingest.options.path "
        "says new; inputs/local.yaml is what --data wrote; the params name another path since. "
        f"Fix: take the params' by deleting the line `data` from {tmp_path}/inputs/local.yaml, or "
        f"confirm the other with `fettle run --data {tmp_path}/old`."
    )


def test_the_command_line_wins_over_the_path_it_was_given_over(tmp_path: Path) -> None:
    set_local(tmp_path, "data", tmp_path / "mine", instead_of="photos")
    assert location(tmp_path, Params(path="photos")) == tmp_path / "mine"
    assert location(tmp_path, Params(path="mine")) == tmp_path / "mine"
    assert location(tmp_path, Params()) == tmp_path / "mine"


@pytest.mark.parametrize("text", ["[1]", "dta: x", "data: 3", "a: [", "data"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "inputs" / "local.yaml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ProjectError) as caught:
        local_settings(tmp_path)
    assert str(caught.value).startswith(f"{path} cannot be read: got ")
