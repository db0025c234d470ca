"""A journal that was sealed anew is no journal: its seals were told outside as it grew."""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rehearsed import RolloutHarness, Users, wait_for
from typer.testing import CliRunner

from fettle import project as projects
from fettle.cli import canary
from fettle.errors import TamperedError, UserError
from fettle.rollout.promotion import decision_journal
from fettle.rollout.supervisor import journal_anchor

UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}


@pytest.fixture
def anchors(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An anchor file outside of the project."""
    file = tmp_path_factory.mktemp("elsewhere") / "anchors.jsonl"
    monkeypatch.setenv(journal_anchor.VARIABLE, str(file))
    return file


def aborted(harness: RolloutHarness) -> Path:
    """Begin a rollout, abort it; return its journal."""
    controller = harness.start(harness.release(1))
    with Users(harness.serving.port):
        controller.obey(
            {
                **harness.order(harness.release(2), **UNDECIDED),
                "who": "ann@a",
                "why": "  it is \n time ",
            }
        )
        harness.tick_until("step")
        controller.obey({"verb": "abort", "who": "bob@b", "why": "too slow"})
        controller.tick()
    controller.close()
    return harness.place.rollout(harness.place.rollouts()[-1]) / "journal.jsonl"


def seal_anew(journal: Path, lines: list[dict[str, Any]]) -> None:
    """Do what who may write the folder can: chain the lines again, and write the tip."""
    tip, out = decision_journal.FIRST, []
    for number, doc in enumerate(lines):
        line = json.dumps({**doc, "n": number, "prev": tip}, sort_keys=True, separators=(",", ":"))
        tip = sha256(line.encode()).hexdigest()
        out.append(line)
    journal.write_text("\n".join([*out, ""]))
    journal.with_suffix(".tip").write_text(f"{len(out)} {tip}\n")


def replay(harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(projects, "find", lambda *_: harness.project)
    return CliRunner().invoke(canary.app, ["replay", *words])


def test_a_journal_whose_end_was_cut_off_and_sealed_anew_fails_by_its_anchors(
    harness: RolloutHarness, anchors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = aborted(harness)
    docs = [json.loads(line) for line in journal.read_text().splitlines()]
    whole = replay(harness, monkeypatch)
    told = [json.loads(line) for line in anchors.read_text().splitlines()]
    assert f"  as it was anchored outside, {len(told)} times" in whole.stdout.splitlines()
    assert told[-1]["lines"] == len(docs)
    abort = next(n for n, doc in enumerate(docs) if doc.get("event", {}).get("ordered") == "abort")
    seal_anew(journal, docs[:abort])
    decision_journal.replay(journal)  # nothing in the folder shows it
    done = replay(harness, monkeypatch)
    assert isinstance(done.exception, TamperedError)
    assert str(done.exception).startswith(
        f"{journal} is not the journal that was anchored in {anchors}: got {abort} lines, of which "
    )


def test_an_order_that_was_given_another_name_fails_by_its_anchors(
    harness: RolloutHarness, anchors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = aborted(harness)
    docs = [json.loads(line) for line in journal.read_text().splitlines()]
    for doc in docs:
        if "ordered" in doc.get("event", {}):
            doc["event"]["who"] = "somebody@else"
    seal_anew(journal, docs)
    monkeypatch.setenv(journal_anchor.VARIABLE, "")
    assert replay(harness, monkeypatch).exit_code == 0
    done = replay(harness, monkeypatch, "--anchors", str(anchors))
    assert isinstance(done.exception, TamperedError)
    assert "than the one that was anchored" in str(done.exception)


def test_who_ordered_and_why_is_journalled_and_shown(
    harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted(harness)
    lines = replay(harness, monkeypatch).stdout.splitlines()
    assert lines[-3:] == [
        "  ordered: start by ann@a: it is time",
        "  ordered: abort by bob@b: too slow",
        "  not anchored: who may write its folder may seal another (FETTLE_JOURNAL_ANCHOR)",
    ]
    doc = json.loads(replay(harness, monkeypatch, "--json").stdout)
    assert doc["orders"][1] == {"order": "abort", "who": "bob@b", "why": "too slow"}
    assert doc["anchors"] is None


def test_a_stop_is_journalled_and_moves_nothing(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    with Users(harness.serving.port):
        controller.obey(harness.order(harness.release(2), **UNDECIDED))
        harness.tick_until("step")
    answer = controller.obey({"verb": "stop", "who": "ann@a", "why": "a new kernel"})
    assert answer == {"state": "step", "reason": "the supervisor is stopped by order"}
    assert controller.status()["weight_percent"] == 50
    journal = harness.place.rollout(harness.place.rollouts()[-1]) / "journal.jsonl"
    given = decision_journal.orders(journal)[-1]
    assert given == {"order": "stop", "who": "ann@a", "why": "a new kernel"}


def test_an_anchor_may_be_a_command(
    harness: RolloutHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept.jsonl"
    script = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"
    monkeypatch.setenv(journal_anchor.VARIABLE, f'| {sys.executable} -c "{script}" {kept}')
    journal = aborted(harness)
    count = len(journal.read_text().splitlines())
    wait_for(lambda: kept.is_file() and f'"lines": {count},' in kept.read_text(), timeout_s=30)
    assert journal_anchor.verify(journal, journal.parent.name, kept) > 1


def test_an_anchor_that_cannot_be_written_ends_nothing(
    harness: RolloutHarness, anchors: Path
) -> None:
    anchors.mkdir()
    aborted(harness)
    assert harness.place.stated(harness.place.rollouts()[-1]) == "aborted"


def test_what_holds_nothing_is_refused_as_an_anchor(tmp_path: Path) -> None:
    folder = tmp_path / ".fettle" / "canary"
    folder.mkdir(parents=True)
    inside = tmp_path / "anchors"
    for given, why in (
        ("anchors", "a path that begins at no root"),
        (str(inside), "a file of this project, whose owner may change both"),
        ("/nowhere/at/all", "no folder /nowhere/at"),
    ):
        with pytest.raises(UserError) as caught:
            journal_anchor.check({journal_anchor.VARIABLE: given}, folder)
        text = f"FETTLE_JOURNAL_ANCHOR names no anchor: got {given}: {why}; "
        assert str(caught.value).startswith(text)
    for given in ("ftp://a/b", "| "):
        with pytest.raises(UserError):
            journal_anchor.check({journal_anchor.VARIABLE: given}, folder)
    elsewhere = os.devnull
    journal_anchor.check({journal_anchor.VARIABLE: elsewhere}, folder)
    journal_anchor.check({}, folder)
