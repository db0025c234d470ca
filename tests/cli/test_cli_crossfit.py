"""`fettle crossfit`: no recipe is judged by images that found it; a search runs in each fold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_project import ROOT

from fettle.cli import crossfit
from fettle.errors import ParamsError
from fettle.params import load
from fettle.release import verdict_ledger
from fettle.release.verdict_ledger import LedgerLine

FOUND = [
    {"use": "prune", "keep_fraction": 0.7, "recover_epochs": 2},
    {"use": "distil", "epochs": 16},
]
DATA = "d" * 64


def line(data: str = DATA) -> LedgerLine:
    return LedgerLine(kind="search", data=data, recipe=verdict_ledger.recipe_key(FOUND))


def judge(recipe: object, *lines: LedgerLine) -> None:
    settings = load(ROOT / "params.yaml", [f"compress.recipe={json.dumps(recipe)}"])
    crossfit.refuse_found(settings, lines, DATA)


def test_a_recipe_that_a_search_on_these_images_found_is_refused_with_what_to_do() -> None:
    with pytest.raises(ParamsError) as caught:
        judge(FOUND, line())
    assert str(caught.value) == (
        "cross-fitting judges no recipe by the images that found it: got compress.recipe: prune > "
        "distil; a search on this very data found it (verdicts.jsonl), for other epochs perhaps. "
        "Fix: --set compress.recipe=auto: each fold then searches on its own images."
    )


@pytest.mark.parametrize(
    "change", [{"epochs": 15}, {"learning_rate": 1e-3}, {"epochs": 3, "learning_rate": 5e-4}]
)
def test_training_it_otherwise_makes_it_no_other_recipe(change: dict[str, float]) -> None:
    with pytest.raises(ParamsError):
        judge([FOUND[0], {**FOUND[1], **change}], line())


def test_another_recipe_other_images_and_a_search_in_each_fold_may_be_judged() -> None:
    judge([{**FOUND[0], "keep_fraction": 0.5}, FOUND[1]], line())
    judge(FOUND, line("e" * 64))
    judge(FOUND[:1], line())
    judge("auto", line())
    judge(FOUND)


def test_the_images_are_told_by_what_their_source_says(tmp_path: Path) -> None:
    from fettle.project import Project

    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "source.json").write_text(json.dumps({"digest": DATA, "images": 3}))
    assert crossfit.source_digest(Project(tmp_path, tmp_path)) == DATA
