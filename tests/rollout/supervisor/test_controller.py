"""Whole rollouts with a real router and real processes as releases."""

from __future__ import annotations

import json
import os
import time

import pytest
from rehearsed import PLAN, RolloutHarness, Users, wait_for

from fettle.errors import BusyError, TamperedError, UserError
from fettle.rollout.promotion import decision_journal
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor import order_queue

pytestmark = pytest.mark.flows

# a plan whose only step no test waits out
UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}


def test_an_equal_challenger_is_promoted_and_no_user_request_fails(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    with Users(harness.serving.port, count=8) as users:
        controller.obey(harness.order(challenger))
        status = harness.tick_until("promoted")
    assert set(users.statuses) == {200}
    assert (status["champion"], status["challenger"]) == (champion.release, challenger.release)
    folder = harness.place.rollout(status["rollout"])
    wanted = json.loads((folder / "aliases.json").read_text())
    assert wanted["aliases"] == {
        "champion": challenger.release,
        "previous_champion": champion.release,
    }
    engine, decisions = decision_journal.replay(folder / "journal.jsonl")
    assert engine.state.phase.value == "promoted"
    assert decisions[-1].reason == status["reason"]


def test_a_promoted_release_serves_on_when_the_old_one_and_the_kill_switch_strike(
    harness: RolloutHarness,
) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    harness.start(champion)
    with Users(harness.serving.port) as users:
        harness.promote(challenger)  # their connections are still those of the old routes
        nginx_process.engage_kill_switch(harness.place.router)
        harness.fail(champion).touch()
        before = users.statuses[200]
        harness.tick_while(lambda: users.statuses[200] < before + 50)
    assert set(users.statuses) == {200}


def test_a_challenger_that_begins_to_fail_is_rolled_back_and_no_user_sees_an_error(
    harness: RolloutHarness,
) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    with Users(harness.serving.port) as users:
        controller.obey(harness.order(challenger, errors_margin=0.01))
        harness.tick_until("step")
        harness.fail(challenger).touch()
        status = harness.tick_until("rolled_back")
        rolled_back_s = time.time()
    assert set(users.statuses) == {200}
    assert status["weight_percent"] == 0
    (failed,) = [gate for gate in status["gates"] if gate["verdict"] == "FAIL"]
    assert failed["name"] == "errors"
    assert failed["evidence"] >= failed["threshold"]
    assert failed["challenger"]["events"] > failed["champion"]["events"] == 0
    drawn = [line["time"] for line in harness.attempts() if line["arm"] == "challenger"]
    assert max(drawn) <= rolled_back_s


def test_the_kill_switch_waits_for_the_journal_and_for_nothing_else(
    harness: RolloutHarness,
) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, **UNDECIDED))
    status = harness.tick_until("step")
    folder = harness.place.rollout(status["rollout"])
    switch = harness.place.router / f"stop-{status['rollout']}"
    assert not switch.exists()
    controller.kill(champion.release)  # it cannot be started again, nor the journal be sealed
    log = harness.place.arms / champion.release / "server.log"
    log.unlink()
    for path in (log, folder / "journal.tip.new"):
        path.mkdir()
    with pytest.raises(IsADirectoryError):
        controller.obey({"verb": "abort"})
    assert switch.exists()
    assert '"ordered":"abort"' in (folder / "journal.jsonl").read_text().splitlines()[-1]
    (folder / "journal.tip.new").rmdir()


def test_a_controller_that_hung_takes_the_kill_switch_back(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    controller.obey(harness.order(harness.release(2), **UNDECIDED))
    rollout = harness.tick_until("step")["rollout"]
    nginx_process.engage_kill_switch(harness.place.router)  # as the watchdog does
    switch = harness.place.router / f"stop-{rollout}"
    assert switch.exists()
    os.utime(harness.place.lease, (0, 0))
    controller.tick()
    assert not switch.exists()


def test_a_challenger_that_names_other_classes_meets_no_user(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2, answer="0")
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, alpha_rollback=0.01))
    status = harness.tick_until("rolled_back")
    assert "a gate failed at shadow" in status["reason"]
    assert controller.challenger_requests() == 0


def test_a_kill_between_the_journal_and_the_names_leaves_the_names_to_the_next_start(
    harness: RolloutHarness,
) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, **UNDECIDED))
    names = harness.place.rollout(harness.tick_until("shadow", "step")["rollout"]) / "aliases.json"
    names.rename(names.with_suffix(".done"))  # MLflow was told who the challenger is
    names.mkdir()  # and what is decided now cannot be written
    with pytest.raises(IsADirectoryError):
        controller.obey({"verb": "abort"})
    names.rmdir()
    controller.close()
    harness.start(None).close()
    wanted = json.loads(names.read_text())
    assert wanted["over"] == challenger.release
    assert wanted["tags"][challenger.release]["canary"] == "aborted"
    names.rename(names.with_suffix(".done"))
    harness.start(None)
    assert not names.exists()  # told once


def test_a_controller_that_is_killed_goes_on_from_its_journal(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, **UNDECIDED))
    with Users(harness.serving.port) as users:
        before = harness.tick_until("step")
        controller.close()  # what a kill leaves: its sockets are closed, nothing else is done
        again = harness.start(None)
        after = again.status()
        assert (after["state"], after["weight_percent"]) == ("step", before["weight_percent"])
        again.obey({"verb": "promote"})
        status = harness.tick_until("promoted")
    assert set(users.statuses) == {200}
    path = harness.place.rollout(status["rollout"]) / "journal.jsonl"
    seen = [
        row[1]
        for line in path.read_text().splitlines()[1:]
        for row in json.loads(line)["event"].get("observed", ())
        if row[0] == "a"
    ]
    assert len(seen) == len(set(seen)) > 0  # none lost count, none counted twice


def test_the_first_release_is_its_own_fallback_and_goes_live_after_its_bake(
    harness: RolloutHarness,
) -> None:
    only = harness.release(1)
    controller = harness.start(None)
    controller.obey(harness.order(only))
    with Users(harness.serving.port) as users:
        status = harness.tick_until("promoted")
    assert status["champion"] is None
    assert users.statuses[200] > 20


def test_a_late_label_is_joined_over_the_public_address(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, **UNDECIDED))
    with Users(harness.serving.port, count=1) as users:
        harness.tick_until("step")
        harness.tick_while(lambda: not users.last_id)
    for _ in range(5):
        controller.tick()
    answer = harness.feedback([{"request_id": users.last_id, "labels": ["3", "1"]}])
    assert answer == (200, {"accepted": 1, "unknown": 0, "repeated": 0})


def test_late_labels_after_the_promotion_take_it_back_and_make_a_new_release_once(
    harness: RolloutHarness,
) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, **UNDECIDED, on_drift="rerun"))
    with Users(harness.serving.port) as users:
        harness.tick_until("step")
        harness.tick_while(lambda: controller.challenger_requests() < 60)
        controller.obey({"verb": "promote"})
        harness.tick_until("promoted")
        right = {"champion": ["3", "1"], "challenger": ["3", "0"]}  # both answered 3 and 1
        given = [
            {"request_id": line["id"], "labels": right[line["arm"]]}
            for line in harness.attempts()
            if line["weight"] == 50
        ]
        assert harness.feedback(given)[0] == 200
        status = harness.tick_until("rolled_back")
        wait_for(harness.again.exists)
    assert set(users.statuses) == {200}
    assert status["reason"] == "a gate failed after promotion; the release flow runs again"
    controller.close()
    note = harness.place.rollout(status["rollout"]) / "rerun.json"
    again = harness.start(None)
    assert harness.again.read_text() == "again\n"
    again.close()
    note.unlink()  # as if killed between the journal and the deed
    harness.start(None)
    wait_for(lambda: harness.again.read_text() == "again\nagain\n")


def test_orders_are_obeyed_and_answered_in_turn(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, shadow_requests=10_000))
    names = [
        order_queue.submit_order(harness.place, {"verb": verb})
        for verb in ("pause", "undo", "abort")
    ]
    controller.tick()
    answers = [order_queue.await_answer(harness.place, name, timeout_s=1) for name in names]
    assert answers == [
        {"state": "paused", "reason": "paused by order"},
        {"state": "paused", "reason": "undo does not fit a rollout that is paused"},
        {"state": "aborted", "reason": "aborted by order"},
    ]
    assert list(harness.place.inbox.glob("*.json")) == []


def test_an_undo_brings_the_old_release_back_even_when_its_server_is_gone(
    harness: RolloutHarness,
) -> None:
    champion, challenger = harness.release(1), harness.release(2, answer="1")
    controller = harness.start(champion)
    with Users(harness.serving.port) as users:
        harness.promote(challenger)
        controller.kill(champion.release)
        controller.obey({"verb": "undo"})
        status = harness.tick_until("rolled_back")
        before = users.statuses[200]
        harness.tick_while(lambda: users.statuses[200] < before + 20)
    assert set(users.statuses) == {200}
    assert status["reason"] == "undone by order"


def test_a_second_rollout_waits_for_the_first(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    rollout = controller.obey(harness.order(challenger))["rollout"]
    with pytest.raises(BusyError) as caught:
        controller.obey(harness.order(harness.release(3)))
    assert str(caught.value) == (
        f"a rollout is under way already: got {rollout}, pending; one rollout at a time. "
        "Fix: wait for it, or `fettle canary abort`."
    )


def test_after_a_promotion_the_next_challenger_meets_the_promoted_one(
    harness: RolloutHarness,
) -> None:
    first, second, third = (harness.release(number) for number in (1, 2, 3))
    harness.start(first)
    with Users(harness.serving.port) as users:
        harness.promote(second)
        time.sleep(1.0)  # rollouts are named by the second
        status = harness.promote(third)
    assert set(users.statuses) == {200}
    assert (status["champion"], status["challenger"]) == (second.release, third.release)


def test_the_champion_is_no_challenger(harness: RolloutHarness) -> None:
    champion = harness.release(1)
    controller = harness.start(champion)
    with pytest.raises(UserError) as caught:
        controller.obey(harness.order(champion))
    assert str(caught.value) == (
        f"the challenger is the champion: got {champion.release}; a rollout compares two "
        "releases. Fix: make another release with `fettle run`, or name one with --release."
    )


def test_a_release_that_was_changed_is_refused_before_it_starts(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    gate = harness.project.releases / challenger.release / "gate.json"
    gate.write_text(gate.read_text().replace("true", "True"))
    with pytest.raises(TamperedError) as caught:
        controller.obey(harness.order(challenger))
    assert str(caught.value).startswith(
        f"the release {challenger.release} was changed after it was published: got digest "
    )
    assert controller.status() == {}


def test_a_release_whose_offline_gate_failed_meets_nobody(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    controller.obey(harness.order(harness.release(2, passed=False)))
    status = harness.tick_until("aborted")
    assert status["reason"] == "the offline gate says FAIL"


def test_a_plan_is_pinned_when_the_rollout_begins(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    rollout = controller.obey(harness.order(harness.release(2)))["rollout"]
    first = (harness.place.rollout(rollout) / "journal.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["begin"]["plan"]["errors_margin"] == PLAN["errors_margin"]
