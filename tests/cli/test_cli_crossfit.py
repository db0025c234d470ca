"""`fettle crossfit`: only a recipe that is fixed beforehand is judged by all images."""

from __future__ import annotations

import pytest
from tiny_project import ROOT

from fettle.cli import crossfit
from fettle.errors import ParamsError
from fettle.params import load


def test_a_searched_recipe_is_refused_with_how_to_name_one() -> None:
    with pytest.raises(ParamsError) as caught:
        crossfit.refuse_searched(load(ROOT / "params.yaml"))
    assert str(caught.value) == (
        "cross-fitting judges a fixed recipe: got compress.recipe: auto; a recipe that was "
        "searched for on these images would be judged by them. Fix: name the steps: --set "
        "compress.recipe='[...]' (`fettle report` shows those found)."
    )


def test_a_fixed_recipe_may_be_judged() -> None:
    crossfit.refuse_searched(load(ROOT / "params.yaml", ["compress.recipe=[]"]))
