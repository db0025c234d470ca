from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from simulated_traffic import PASSED, a_plan, agreeing_pairs, attempts

from fettle.errors import BusyError, ProjectError, TamperedError, UserError
from fettle.rollout.promotion import decision_journal, event_serialization
from fettle.rollout.promotion.champion_history import ChampionHistory
from fettle.rollout.promotion.decision_engine import (
    Begin,
    Engine,
    Event,
    Observed,
    Offline,
    Ordered,
)
from fettle.rollout.promotion.decision_journal import DecisionJournal
from fettle.rollout.promotion.request_records import Arm, InputObservation, Label
from fettle.rollout.promotion.rollout_state import Verb

BEGIN = Begin(
    rollout_id="r1",
    challenger="b" * 64,
    champion="a" * 64,
    plan=a_plan(),
    reference=(0.5, 0.5),
    images=300,
    history=ChampionHistory(
        requests=2048,
        log_tau=3.5,
        worst_log_tau=3.9,
        worst_errors=0.03,
        errors=((128.0, 20.0, 21.0), (16.0, 20.0, 40.0), (2.0, 20.0, 200.0)),
        refused=((128.0, 0.0, 0.0), (16.0, 0.0, 0.0), (2.0, 0.0, 0.0)),
    ),
)


def events() -> list[Event]:
    seen = [tuple(attempts(i, 0.1, 40, errors=(0.02, 0.02))) for i in range(4)]
    late = tuple(Label(request_id=a.request_id, time_s=9.5, correct=True) for a in seen[0])
    inputs = tuple(
        InputObservation(request_id=str(i), time_s=2.0, arm=Arm.CHAMPION, bin_index=i % 2)
        for i in range(9)
    )
    return [
        Offline(now_s=0.1, results=(PASSED,)),
        agreeing_pairs(300),
        *(Observed(now_s=2.0 + i / 3, records=one) for i, one in enumerate(seen)),
        Observed(now_s=4.0, records=(*late, *inputs)),
        Ordered(now_s=5.0, verb=Verb.PAUSE),
        Observed(now_s=6.0, error="the router's log cannot be read"),
        Ordered(now_s=7.0, verb=Verb.RESUME),
    ]


def written(path: Path) -> Engine:
    engine, book = Engine(BEGIN), DecisionJournal.create(path, BEGIN)
    for event in events():
        book.write(event, engine.decide(event))
    book.seal()
    return engine


def test_a_replay_gives_every_decision_and_the_state_again(tmp_path: Path) -> None:
    engine = written(tmp_path / "r1.jsonl")
    again, decisions = decision_journal.replay(tmp_path / "r1.jsonl")
    assert len(decisions) == len(events()) == 10
    assert again.state == engine.state
    assert again.gates.errors.worse.tobytes() == engine.gates.errors.worse.tobytes()
    assert again.gates.tail.log_tau.tobytes() == engine.gates.tail.log_tau.tobytes()
    assert again.gates.labels.expected.tobytes() == engine.gates.labels.expected.tobytes()


def test_an_event_reads_back_as_it_was_written() -> None:
    for event in events():
        assert (
            event_serialization.event_from_json(
                json.loads(json.dumps(event_serialization.event_to_json(event)))
            )
            == event
        )
    assert (
        event_serialization.begin_from_json(
            json.loads(json.dumps(event_serialization.begin_to_json(BEGIN)))
        )
        == BEGIN
    )


def test_a_crash_while_writing_loses_only_the_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    written(path)
    raw = path.read_bytes()
    path.write_bytes(raw + b'{"n":11,"prev":"')
    with pytest.raises(TamperedError, match=r"r1\.jsonl, line 12: the line is cut"):
        decision_journal.replay(path)
    engine, decisions, book = decision_journal.recover(path)
    assert path.read_bytes() == raw
    event = Ordered(now_s=8.0, verb=Verb.ABORT)
    book.write(event, engine.decide(event))
    assert len(decision_journal.replay(path)[1]) == len(decisions) + 1


def test_a_crash_between_the_line_and_its_seal_is_no_tampering(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    written(path)
    seal = (tmp_path / "r1.tip").read_text()
    engine, _, book = decision_journal.recover(path)
    event = Ordered(now_s=8.0, verb=Verb.ABORT)
    book.write(event, engine.decide(event))
    (tmp_path / "r1.tip").write_text(seal)
    assert decision_journal.replay(path)[0].state.phase == "aborted"


def test_a_journal_from_before_a_plan_could_run_again_replays(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    written(path)
    assert b"ran_again" not in path.read_bytes()
    first = json.loads(path.read_text().splitlines()[0])["begin"]
    del first["plan"]["on_drift"]
    assert event_serialization.begin_from_json(first) == BEGIN


def test_a_decision_is_on_the_disk_before_its_seal(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    engine, book = Engine(BEGIN), DecisionJournal.create(path, BEGIN)
    for done, event in enumerate(events()[:2]):
        book.write(event, engine.decide(event))
        assert len(path.read_text().splitlines()) == done + 2
        assert (tmp_path / "r1.tip").read_text().startswith(f"{done + 1} ")
    book.seal()
    assert (tmp_path / "r1.tip").read_text().startswith("3 ")


def test_an_edited_line_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    written(path)
    lines = path.read_text().splitlines(keepends=True)
    lines[3] = lines[3].replace('"now_s":2.0', '"now_s":2.5')
    path.write_text("".join(lines))
    with pytest.raises(TamperedError) as caught:
        decision_journal.replay(path)
    assert str(caught.value) == (
        "r1.jsonl, line 5: it does not carry the seal of the line before; each line carries the "
        "sha256 of the one before, so none can be changed or lost. Fix: restore the file from a "
        "copy; traffic stays where it is until then."
    )


def test_a_decision_that_does_not_follow_is_refused_even_under_a_right_seal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "r1.jsonl"
    engine, book = Engine(BEGIN), DecisionJournal.create(path, BEGIN)
    event = events()[0]
    decision = engine.decide(event)
    book.write(event, replace(decision, reason="a person liked it"))
    with pytest.raises(TamperedError) as caught:
        decision_journal.replay(path)
    assert str(caught.value) == (
        "r1.jsonl, line 2: the decision does not follow from the events: got another reason; "
        "a replay gives every decision again, bit for bit. Fix: the journal, or the code since it "
        "was written, was changed: replay it with the release of fettle that wrote it."
    )


def test_a_lost_line_is_refused_wherever_it_was(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    written(path)
    lines = path.read_text().splitlines(keepends=True)
    for at in range(1, len(lines)):
        path.write_text("".join(lines[:at] + lines[at + 1 :]))
        with pytest.raises(TamperedError, match=rf"line {min(at + 1, 11)}: "):
            decision_journal.replay(path)
    path.write_text("".join(lines[:-3]))
    with pytest.raises(TamperedError) as caught:
        decision_journal.replay(path)
    assert str(caught.value) == (
        "r1.jsonl, line 9: 11 lines were written, 8 are left; each line carries the sha256 of the "
        "one before, so none can be changed or lost. Fix: restore the file from a copy; traffic "
        "stays where it is until then."
    )


def test_a_journal_is_never_written_over(tmp_path: Path) -> None:
    DecisionJournal.create(tmp_path / "r1.jsonl", BEGIN)
    with pytest.raises(BusyError, match="this rollout already has a journal"):
        DecisionJournal.create(tmp_path / "r1.jsonl", BEGIN)


def test_a_missing_or_empty_journal_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="there is no journal"):
        decision_journal.replay(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(TamperedError, match="line 1: the journal is empty"):
        decision_journal.replay(tmp_path / "empty.jsonl")


def test_a_journal_of_another_version_is_named_and_its_last_state_is_known(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    written(path)
    raw = path.read_text()
    for given, found in (('"version":7', "7"), ('"none":0', "1")):
        path.write_text(raw.replace(f'"version":{decision_journal.VERSION}', given, 1))
        if found == "1":  # as it was before journals had a version
            path.write_text(raw.replace(f',"version":{decision_journal.VERSION}', "", 1))
        with pytest.raises(UserError) as caught:
            decision_journal.replay(path)
        assert str(caught.value) == (
            f"{path} is a journal of another version: got version {found}; this fettle replays "
            f"version {decision_journal.VERSION}: another may have judged otherwise. Fix: replay "
            "it with the release of fettle that wrote it; what serves, serves on."
        )
        assert decision_journal.last_state(path) == "step"


def test_a_line_that_is_no_event_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "r1.jsonl"
    engine, book = Engine(BEGIN), DecisionJournal.create(path, BEGIN)
    event = events()[0]
    book.write(event, engine.decide(event))
    first, second = path.read_text().splitlines()
    path.write_text(first + "\n" + second.replace('"now_s"', '"then_s"') + "\n")
    with pytest.raises(TamperedError, match=r"r1\.jsonl, line 2: it is no event of a rollout"):
        decision_journal.replay(path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]\n", b'{"decision": 3}\n'])
def test_what_states_no_phase_has_no_last_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r1.jsonl").write_bytes(content)
    assert decision_journal.last_state(tmp_path / "r1.jsonl") is None
    assert decision_journal.last_state(tmp_path / "none.jsonl") is None
