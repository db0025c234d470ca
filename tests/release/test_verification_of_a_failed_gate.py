from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_release
from published_release import PublishedRelease

from fettle.cli import verify
from fettle.errors import TamperedError
from fettle.release import release_verification


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedRelease:
    """A release whose budget its test set cannot decide, and whose limits do not hold."""
    bounds = (
        "compress.budget.drop_max=0.01",
        "compress.budget.metric=macro_f1",
        "verdict.limits=[{metric: accuracy, min: 0.999, max: 1.0}]",
        "verdict.class_drop_max=null",
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(tiny_release, "SETTINGS", (*tiny_release.SETTINGS, *bounds))
    return PublishedRelease(tmp_path / "project")


def test_a_release_whose_gate_did_not_pass_is_honest_too(
    failed: PublishedRelease, capsys: Any
) -> None:
    gate = json.loads((failed.folder / "gate.json").read_text())
    assert gate["passed"] is False
    assert len(gate["failed"]) >= 1
    verify.verify(str(failed.folder))
    assert "every figure follows from what it carries" in capsys.readouterr().out


def test_a_gate_that_is_said_to_have_passed_is_refused(failed: PublishedRelease) -> None:
    for name in ("gate.json", "release.json"):
        doc = json.loads((failed.folder / name).read_text())
        doc |= {"passed": True}
        (failed.folder / name).write_text(json.dumps(doc, indent=1, sort_keys=True) + "\n")
    figures = release_verification.derive(failed.folder)
    with pytest.raises(TamperedError) as caught:
        release_verification.refuse(figures, failed.folder)
    assert "passed is stated as True, derived as False" in str(caught.value)
