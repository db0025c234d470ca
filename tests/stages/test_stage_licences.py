"""Licences on their way through the stages: stated, judged, on the card and in the SBOM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_project import settings
from tiny_release import TinyRelease

from fettle import manifest
from fettle.facts.ingest_facts import IngestFacts
from fettle.facts.verdict_facts import VerdictFacts
from fettle.recorder import MemoryRecorder
from stages import verdict


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRelease:
    return TinyRelease(tmp_path_factory.mktemp("licensed"))


def judged(tiny: TinyRelease, tmp_path: Path, *overrides: str) -> VerdictFacts:
    exports = [f"export@{target}" for target in ("x86_ort_fp32", "x86_ort_int8")]
    inputs = tiny.project.inputs("ingest", "validate", "finetune", *exports, "select")
    given = ("compress.budget.drop_max=0.2", *overrides)
    return verdict.run(settings(*given), inputs, tmp_path, MemoryRecorder()).facts


def test_the_verdict_states_the_licence_of_the_data_and_of_the_model(
    tiny: TinyRelease, tmp_path: Path
) -> None:
    facts = judged(tiny, tmp_path)
    assert facts.licences == {"data": "CC0-1.0", "model": None}
    assert facts.passed
    stated = judged(tiny, tmp_path, "verdict.licences.model=MIT")
    assert stated.licences == {"data": "CC0-1.0", "model": "MIT"}


def test_a_release_of_what_is_not_allowed_does_not_pass(tiny: TinyRelease, tmp_path: Path) -> None:
    refused = judged(tiny, tmp_path, "verdict.licences.allow=[CC0-1.0]")
    assert not refused.passed
    assert refused.failed == (
        "the model's licence is not stated, which is not in verdict.licences.allow (CC0-1.0)",
    )
    given = ("verdict.licences={allow: [CC0-1.0, MIT], data: null, model: MIT}",)
    allowed = judged(tiny, tmp_path, *given)
    assert allowed.passed
    assert "the model's licence MIT is in verdict.licences.allow (CC0-1.0, MIT)" in allowed.reasons


def test_the_card_and_the_sbom_state_them_or_what_to_do(tiny: TinyRelease) -> None:
    tiny.package()
    card = (tiny.release / "card.md").read_text()
    assert "- data: CC0-1.0\n" in card
    assert (
        "- model: not stated; a file LICENSE beside it, or verdict.licences.model, states it\n"
        in card
    )
    bill = json.loads((tiny.release / "sbom.cdx.json").read_text())
    data = next(one for one in bill["components"] if one["type"] == "data")
    assert data["licenses"][0]["license"]["id"] == "CC0-1.0"
    facts = manifest.read(tiny.release.parents[1] / "ingest", IngestFacts, verify=False).facts
    assert facts.licence == "CC0-1.0"
