"""docs/params.md says what the models say."""

from __future__ import annotations

import re

import pytest

from fettle import params, plugins
from tools import params_reference


@pytest.fixture(scope="module")
def page() -> str:
    return params_reference.FILE.read_text()


def test_the_page_is_what_the_models_make_of_it(page: str) -> None:
    assert page == params_reference.generate(), "run `make params`"


@pytest.mark.parametrize("start", params_reference.STARTS)
def test_every_key_of_the_files_that_a_project_starts_from_is_in_it(start: str, page: str) -> None:
    path = params_reference.STARTS[start]
    keys = [key for key, _ in params_reference.lines(path)]
    missing = [
        key
        for key in keys
        if f"`{key}`" not in page
        and f"## {key}\n" not in page
        and f"`{key.rpartition('.')[0]}`" not in page  # of a plug-in's own options
    ]
    assert len(keys) > 80
    assert missing == []


def test_a_key_has_its_limits_its_default_and_both_values(page: str) -> None:
    assert (
        '| `preprocess.fit` | `stretch` or `crop` or `pad` | `"stretch"` | `stretch` | `crop` | '
        "what is not square: crop the centre, pad, or stretch |"
    ) in page
    assert "| `ingest.split.train` | number, ≥ 0, ≤ 1 | needed | `0.4` | `0.5` |  |" in page
    assert "| `verdict.licences.allow` | list of text" in page


def test_the_options_of_every_plug_in_are_in_it(page: str) -> None:
    for kind in ("sources", "families", "techniques"):
        for name in plugins.names(kind):
            assert f"- `{name}`: {plugins.summary(kind, name)}" in page


def test_each_key_stands_once_and_is_one_that_params_know(page: str) -> None:
    keys = re.findall(r"^\| `([\w.]+)` \|", page, re.M)
    assert len(keys) == len(set(keys)) > 100
    settings = params.load(params_reference.STARTS["photos"]).model_dump(by_alias=True)
    for key in keys:
        node: object = settings
        for part in key.split("."):
            assert isinstance(node, dict)
            assert part in node, key
            node = node[part]
