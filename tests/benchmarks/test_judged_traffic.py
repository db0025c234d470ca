"""Unjudged requests are counted from the router's log and the journals, damaged lines and all."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import chaos
from benchmarks.chaos_campaign import injected_fault, judged_traffic
from benchmarks.chaos_campaign.fault_campaign import CampaignResult, FaultResult
from benchmarks.chaos_campaign.injected_fault import FaultKind
from benchmarks.chaos_campaign.judged_traffic import JudgedTraffic
from fettle.rollout.supervisor.state_layout import StateLayout

LEASE_S = 10.0


def line(at: float, *, arm: str = "challenger", weight: float = 5.0) -> str:
    """One line of the router's log, of a request that took half a second."""
    doc = {"time": at + 0.5, "id": f"r{at}", "arm": arm, "weight": weight, "key": "", "status": 200}
    tries = {"addr": "127.0.0.1:3100", "statuses": "200", "times": "0.500"}
    return json.dumps({**doc, "seconds": 0.5, **tries, "predicted": "", "inputs": ""}) + "\n"


@pytest.fixture
def place(tmp_path: Path) -> StateLayout:
    """A rollout that was judged from second 100 to 110, then no more."""
    made = StateLayout(tmp_path)
    made.router.mkdir()
    folder = made.rollout("r1")
    folder.mkdir(parents=True)
    judged = [json.dumps({"event": {"observed": [], "now_s": at}}) for at in range(100, 111)]
    (folder / "journal.jsonl").write_text("\n".join(['{"begin": {}}', *judged, "torn {"]))
    return made


def log(place: StateLayout, *lines: str) -> None:
    (place.router / "attempts.log").write_text("".join(lines))


def test_a_request_within_the_lease_of_a_decision_is_judged(place: StateLayout) -> None:
    log(place, line(101), "\xff alien\n", line(110 + LEASE_S))
    assert judged_traffic.count(place, LEASE_S) == JudgedTraffic(2, 0, 0.0)


def test_a_request_after_the_lease_is_unjudged_and_its_seconds_are_blind(
    place: StateLayout,
) -> None:
    log(place, line(105), line(125), line(131))
    slack = judged_traffic.SLACK_S
    assert judged_traffic.count(place, LEASE_S) == JudgedTraffic(3, 2, 21 - LEASE_S - slack)


def test_what_the_champion_was_drawn_for_is_not_counted(place: StateLayout) -> None:
    log(place, line(500, arm="champion"), line(501, weight=0))
    assert judged_traffic.count(place, LEASE_S) == JudgedTraffic(0, 0, 0.0)


def test_each_kind_of_fault_comes_as_often_as_another_and_a_seed_gives_them_again() -> None:
    dealt = list(injected_fault.deck(300, random.Random(3)))
    assert min(Counter(dealt).values()) >= 300 // len(FaultKind) >= 20
    assert dealt == list(injected_fault.deck(300, random.Random(3)))
    assert dealt != list(injected_fault.deck(300, random.Random(4)))


def test_a_campaign_makes_rows_that_name_what_did_not_hold() -> None:
    held = FaultResult(1, "step", FaultKind.KILL, "router", 0.5)
    broken = FaultResult(2, "step", FaultKind.KILL, "champion", 9.0, ("nobody answered",))
    result = CampaignResult([held, broken], 100, 3, 4, JudgedTraffic(50, 0, 0.0))
    found = {row.what.removeprefix("fault campaign: "): row for row in chaos.rows(result, 7)}
    first = found["faults after which something did not hold"]
    assert (first.value, first.n, first.verdict) == (1, 2, "missed")
    assert first.note == "2 kill -9: champion: nobody answered"
    assert found["from the end of a fault (kill -9) to an answer, worst"].high == 9.0
    assert found["user requests without an answer, of all that were sent"].value == 3
    assert found["challenger requests that nobody judged within the lease"].verdict == "met"
    assert all(row.seeds == (7,) for row in found.values())
