"""A release's count of earlier verdicts is counted again from what it carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import forged_release as forged
import pytest
from forged_release import Tamper, assigned
from published_release import PublishedRelease

from fettle import manifest
from fettle.cli import verify as command
from fettle.errors import TamperedError
from fettle.release import verdict_ledger
from fettle.release.verdict_ledger import LedgerLine

LEDGER, VERDICT = "evidence/verdicts.jsonl", "evidence/verdict.json"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedRelease:
    """Published after the same test images had judged two other files."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("FETTLE_ROOT", str(tmp_path / "ledger"))
    (tmp_path / "ledger").mkdir()
    first = PublishedRelease(tmp_path / "first", chosen="x86_ort_int8")
    lines = verdict_ledger.read(verdict_ledger.place(tmp_path))
    other = LedgerLine.model_validate({**dict(lines[0]), "model": "0" * 64})
    verdict_ledger.append(verdict_ledger.place(tmp_path), other)
    del first
    return PublishedRelease(tmp_path / "second", chosen="x86_ort_fp32")


def without_a_line(release: Path) -> None:
    file = release / LEDGER
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))


def sealed_again(tamper: Tamper) -> Tamper:
    """Name the changed ledger in the verdict's manifest, as a forger would."""

    def both(release: Path) -> None:
        tamper(release)
        doc = json.loads((release / VERDICT).read_text())
        entry = next(one for one in doc["files"] if one["path"] == "verdicts.jsonl")
        entry["sha256"] = manifest.sha256_file(release / LEDGER)
        entry["bytes"] = (release / LEDGER).stat().st_size
        manifest.write_json(release / VERDICT, doc)

    return both


def test_it_says_how_often_its_test_images_judged_in_gate_and_card_and_is_accepted(
    published: PublishedRelease, capsys: Any
) -> None:
    gate = json.loads((published.folder / "gate.json").read_text())
    assert (gate["ledger"]["verdicts"], gate["ledger"]["models"]) == (3, 3)
    said = "test images have judged 3 times"
    assert sum(said in reason for reason in gate["reasons"]) == 1
    assert said in (published.folder / "card.md").read_text()
    command.verify(str(published.folder))
    assert "every figure follows from what it carries" in capsys.readouterr().out


@pytest.mark.parametrize(
    "tamper",
    [
        without_a_line,
        sealed_again(without_a_line),
        assigned(VERDICT, "facts/ledger/verdicts", 1),
        assigned(VERDICT, "facts/ledger/models", 1),
        assigned(VERDICT, "facts/ledger/rows", "0" * 64),
    ],
    ids=["a line", "a line, sealed again", "the count", "the files", "the images"],
)
def test_a_look_that_is_left_out_is_found_out_whoever_signs(
    published: PublishedRelease, tmp_path: Path, tamper: Tamper
) -> None:
    release = forged.copied(published.folder, tmp_path / "forged")
    before = forged.manifests(release)
    tamper(release)
    forged.forge(release, before)
    forged.seal(release)
    signed = forged.sign(release)
    with pytest.raises(TamperedError, match=r"ledger\.|verdicts\.jsonl|reasons"):
        command.verify(str(signed))
