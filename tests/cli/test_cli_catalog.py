from __future__ import annotations

import json

import pytest

from fettle import plugins
from fettle.cli import catalog
from fettle.errors import UserError


def test_every_plug_in_is_listed_with_its_first_line_and_its_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    catalog.catalog(kind=None, json_=True)
    rows = json.loads(capsys.readouterr().out)
    folders = ("sources", "checks", "families", "techniques", "targets", "runtimes")
    assert len(rows) == sum(len(plugins.names(folder)) for folder in folders)
    assert all(row["about"] for row in rows)
    (prune,) = [row for row in rows if row["name"] == "prune"]
    assert prune["params_key"] == "compress.recipe[].use"
    assert prune["options"]["keep_fraction"].startswith("number = ")


def test_one_kind_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    catalog.catalog(kind="sources", json_=False)
    shown = capsys.readouterr().out
    assert "ingest.source: image_folder\n    The user's own images: " in shown
    assert "      group_pattern: string or null = null\n" in shown
    assert "finetune.family" not in shown


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        catalog.catalog(kind="source", json_=False)
    assert str(caught.value) == (
        "there is no kind 'source', did you mean 'sources'?; the kinds are sources, checks, "
        "families, techniques, targets, runtimes. Fix: see `fettle catalog`."
    )
