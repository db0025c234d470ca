"""A rollout that waits for a person over a weekend costs less than a gigabyte, and is judged on."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from rehearsed import RolloutHarness, Users

from fettle.rollout.promotion import decision_journal
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor import log_rotation, rollout_observer

PER_S, WEEKEND_S = 100, 65 * 3600  # from Friday evening to Monday morning
LIMIT_BYTES = 40_000
UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}


def events(journal: Path) -> list[tuple[str, list[list[object]]]]:
    """Each line of a journal with the records that it judged."""
    lines = journal.read_text().splitlines()
    return [(line, json.loads(line).get("event", {}).get("observed", [])) for line in lines]


def pause_for(harness: RolloutHarness, seconds: float) -> None:
    assert harness.controller is not None
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        harness.controller.tick()
        time.sleep(0.01)


@pytest.fixture
def paused(harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch) -> RolloutHarness:
    """A rollout held at 50 % by a person, with limits a thousand times smaller."""
    monkeypatch.setattr(nginx_process, "LOG_MAX_BYTES", LIMIT_BYTES)
    monkeypatch.setattr(rollout_observer, "PAUSED_EVERY_S", 0.1)
    monkeypatch.setattr(rollout_observer, "PAUSED_REQUESTS", 100)
    controller = harness.start(harness.release(1))
    with Users(harness.serving.port):
        controller.obey(harness.order(harness.release(2), **UNDECIDED))
        harness.tick_until("step")
    controller.obey({"verb": "pause"})
    return harness


def journal_of(harness: RolloutHarness) -> Path:
    return harness.place.rollout(harness.place.rollouts()[-1]) / "journal.jsonl"


def test_a_weekend_paused_at_a_hundred_requests_a_second_costs_less_than_a_gigabyte(
    paused: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_of(paused)
    before = len(events(journal))
    with Users(paused.serving.port, count=4) as users:
        pause_for(paused, 12)
    asked = users.statuses.total()
    logs = sorted(paused.place.router.glob("attempts*.log"))
    lines = [line for path in logs for line in path.read_bytes().splitlines()]
    assert 2 <= len(logs) <= nginx_process.KEPT_LOGS + 1
    written = events(journal)[before:]
    rows = [row for _, found in written for row in found]
    judged = Counter(str(row[0]) for row in rows)["a"]
    thinned = (judged - rollout_observer.PAUSED_REQUESTS) / (asked - judged)
    assert thinned < 4 / rollout_observer.PAUSED_ONE_IN  # one in 64, the last ticks aside

    row_bytes = sum(len(json.dumps(row)) for row in rows)
    look_bytes = (sum(len(line) for line, _ in written) - row_bytes) / len(written)
    monkeypatch.undo()
    requests, looks = PER_S * WEEKEND_S, WEEKEND_S / rollout_observer.PAUSED_EVERY_S
    kept = rollout_observer.PAUSED_REQUESTS + requests / rollout_observer.PAUSED_ONE_IN
    cost = (
        looks * look_bytes
        + kept * row_bytes / judged
        + (nginx_process.KEPT_LOGS + 1) * nginx_process.LOG_MAX_BYTES
        + 6 * 2 * log_rotation.MOST_BYTES  # two releases, nginx, watchdog, controller, a rerun
    )
    assert cost < 1e9
    line_bytes = sum(map(len, lines)) / len(lines)
    assert requests * line_bytes > 4e9  # of the router's log alone, had it no end


def test_what_is_judged_of_a_long_pause_still_rolls_back(paused: RolloutHarness) -> None:
    with Users(paused.serving.port, count=4):
        pause_for(paused, 3)
        challenger = paused.place.serving().challenger  # type: ignore[union-attr]  # it is on trial
        assert challenger is not None
        paused.fail(challenger).touch()
        status = paused.tick_until("rolled_back")
    assert status["reason"] == "a gate failed while paused"


def test_at_weight_0_nothing_is_journalled(paused: RolloutHarness) -> None:
    assert paused.controller is not None
    observer = paused.controller._observer
    assert observer is not None
    paused.controller._act(observer.fail("nobody can judge"))
    before = journal_of(paused).stat().st_size
    with Users(paused.serving.port) as users:
        pause_for(paused, 2)
    assert set(users.statuses) == {200}
    assert journal_of(paused).stat().st_size == before


def test_a_journal_of_a_pause_replays(paused: RolloutHarness) -> None:
    with Users(paused.serving.port):
        pause_for(paused, 2)
    assert paused.controller is not None
    paused.controller.close()
    engine, decisions = decision_journal.replay(journal_of(paused))
    assert engine.state.phase == "paused"
    assert len(decisions) > 5
