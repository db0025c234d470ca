"""What cannot be read takes no service down: journals, orders, log lines, labels."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from certified import certificate
from rehearsed import RolloutHarness, Users

from fettle.cli import canary_orders, canary_view
from fettle.errors import UserError
from fettle.rollout.promotion import decision_journal
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor import fault_backoff, order_queue
from fettle.rollout.supervisor.evidence_collector import BAD_MOST
from fettle.rollout.supervisor.state_layout import PinnedRelease

pytestmark = pytest.mark.flows

UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}


def served_by(harness: RolloutHarness) -> set[int]:
    with Users(harness.serving.port) as users:
        deadline = time.monotonic() + 10
        while sum(users.statuses.values()) < 40 and time.monotonic() < deadline:
            time.sleep(0.02)
    return set(users.statuses)


def arms_asked(harness: RolloutHarness, since: int) -> set[str]:
    return {line["addr"] for line in harness.attempts()[since:]}


def address(harness: RolloutHarness, release: PinnedRelease) -> str:
    found = harness.arm(release)
    assert found is not None
    return found.address


def at_step(harness: RolloutHarness) -> tuple[PinnedRelease, PinnedRelease, Path]:
    """A rollout at its 50 %; returns the releases and its journal. The controller is closed."""
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    controller.obey(harness.order(challenger, **UNDECIDED))
    with Users(harness.serving.port):
        status = harness.tick_until("step")
        harness.tick_while(lambda: controller.challenger_requests() < 10)
    controller.close()
    return champion, challenger, harness.place.rollout(status["rollout"]) / "journal.jsonl"


def reword(journal: Path) -> None:
    """What an upgrade that says a reason otherwise makes of every old journal."""
    journal.write_text(journal.read_text().replace('"reason":"', '"reason":"in short: ', 1))


def other_version(journal: Path) -> None:
    written = f'"version":{decision_journal.VERSION}'
    journal.write_text(journal.read_text().replace(written, '"version":99', 1))


def garbage(journal: Path) -> None:
    journal.write_bytes(b"\xff\x00\n")


def no_folder(journal: Path) -> None:
    shutil.rmtree(journal.parent)


DAMAGE = [reword, other_version, garbage, no_folder]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_journal_that_cannot_be_folded_costs_the_challenger_its_traffic_and_no_user(
    harness: RolloutHarness, damage: object
) -> None:
    champion, challenger, journal = at_step(harness)
    damage(journal)  # type: ignore[operator]  # one of DAMAGE
    controller = harness.start(None)
    before = len(harness.attempts())
    assert served_by(harness) == {200}
    controller.tick()
    assert arms_asked(harness, before) == {address(harness, champion)}
    status = controller.status()
    assert (status["state"], status["weight_percent"]) == ("broken", 0.0)
    said = harness.place.problems()[f"rollout {journal.parent.name}"]
    assert said.startswith("it cannot be read: ")
    with pytest.raises(UserError, match="is not watched, so it cannot resume"):
        controller.obey({"verb": "resume"})
    assert controller.obey({"verb": "abort"}) == {
        "state": "aborted",
        "reason": f"{journal.parent.name} is put away unread; {champion.release} serves",
    }
    time.sleep(1.0)  # rollouts are named by the second
    controller.obey(harness.order(challenger, **UNDECIDED))
    assert controller.status()["state"] != "broken"


@pytest.mark.parametrize(
    ("damage", "end"),
    [(garbage, "abort"), (no_folder, "abort"), (reword, "promote"), (other_version, "promote")],
)
def test_a_finished_rollout_never_keeps_the_service_down(
    harness: RolloutHarness, damage: object, end: str
) -> None:
    champion, challenger, journal = at_step(harness)
    controller = harness.start(None)
    with Users(harness.serving.port):
        controller.obey({"verb": end})
        harness.tick_until("aborted", "promoted")
    controller.close()
    nginx_process.terminate(harness.place.router, timeout_s=2)
    for release in (champion, challenger):
        harness.stop_arm(release)
    damage(journal)  # type: ignore[operator]  # one of DAMAGE
    harness.start(None).tick()
    assert served_by(harness) == {200}
    live = challenger if end == "promote" else champion
    assert {line["addr"] for line in harness.attempts()[-10:]} == {address(harness, live)}


def test_a_deleted_challenger_of_an_aborted_rollout_keeps_nothing_down(
    harness: RolloutHarness,
) -> None:
    _, challenger, _ = at_step(harness)
    controller = harness.start(None)
    controller.obey({"verb": "abort"})
    controller.close()
    shutil.rmtree(challenger.folder)
    harness.start(None).tick()
    assert served_by(harness) == {200}


def test_torn_labels_are_left_out_and_orders_are_obeyed(harness: RolloutHarness) -> None:
    _, _, journal = at_step(harness)
    (journal.parent / "labels.jsonl").write_bytes(b'{"request_id": "a", "ti\n\xff\n[]\n')
    controller = harness.start(None)
    controller.tick()
    assert controller.status()["skipped"] == 3
    assert controller.obey({"verb": "abort"})["state"] == "aborted"


def test_a_few_bad_lines_are_left_out_and_too_many_take_the_weight_away(
    harness: RolloutHarness,
) -> None:
    at_step(harness)
    controller = harness.start(None)
    log = harness.place.router / "attempts.log"
    with log.open("ab") as out:
        out.write(b'{"status":000}\n' * (BAD_MOST - 1) + b"\xff\n")
    controller.tick()
    assert (controller.status()["state"], controller.status()["skipped"]) == ("step", BAD_MOST)
    with log.open("ab") as out:
        out.write(b"\xed\xa0\x80\n" * BAD_MOST)
    status = harness.tick_until("paused")
    assert status["weight_percent"] == 0
    assert status["reason"] == "the analysis failed at 50 %: weight 0"
    assert controller.obey({"verb": "resume"})["state"] == "step"  # a person has seen them
    controller.tick()
    assert controller.status()["state"] == "step"


def test_garbage_in_the_inbox_ends_nothing_and_the_next_order_is_obeyed(
    harness: RolloutHarness,
) -> None:
    at_step(harness)
    controller = harness.start(None)
    (harness.place.inbox).mkdir(exist_ok=True)
    (harness.place.inbox / "1.json").write_text("{}")
    bad = order_queue.submit_order(
        harness.place, {"verb": "start", "challenger": 7, "plan": {"steps": []}}
    )
    good = order_queue.submit_order(harness.place, {"verb": "abort"})
    worse = order_queue.submit_order(
        harness.place, {"verb": "start", "challenger": 7, "plan": {"steps": []}}
    )
    controller.tick()
    answers = [
        order_queue.await_answer(harness.place, name, timeout_s=0) for name in (bad, good, worse)
    ]
    assert [str((answer or {}).get("error", ""))[:43] for answer in answers] == [
        "a rollout is under way already: got " + harness.place.rollouts()[0][:7],
        "",
        "the order to start cannot be understood: go",
    ]


def test_a_plan_that_the_router_cannot_take_begins_nothing(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    order = harness.order(harness.release(2), sticky_key="cookie:session-id")
    with pytest.raises(UserError, match=r"cookie:NAME \(letters, digits, _\)"):
        controller.obey(order)
    assert harness.place.rollouts() == []
    assert served_by(harness) == {200}


def test_routes_that_nginx_refuses_begin_nothing(harness: RolloutHarness, tmp_path: Path) -> None:
    pair = certificate(tmp_path / "tls")
    harness.serving = replace(
        harness.serving, certificate=str(pair[0]), certificate_key=str(pair[1])
    )
    controller = harness.start(harness.release(1))
    pair[0].unlink()
    with pytest.raises(UserError, match="nginx refuses the router's configuration"):
        controller.obey(harness.order(harness.release(2)))
    assert harness.place.rollouts() == []


def test_a_controller_that_fails_in_every_tick_sends_nobody_to_the_challenger(
    harness: RolloutHarness,
) -> None:
    champion, _, journal = at_step(harness)
    status = journal.parent / "status.json"
    status.unlink()
    status.mkdir()  # so that no tick ends
    switch = harness.place.router / f"stop-{journal.parent.name}"
    for before_this in range(fault_backoff.FAULTS_MAX):
        controller = harness.start(None)
        assert switch.exists() == (before_this > 0)  # a start alone does not take it back
        lease = harness.place.lease.stat().st_mtime
        with pytest.raises(IsADirectoryError) as caught:
            controller.tick()
        controller.fail(caught.value)
        controller.close()
        assert harness.place.lease.stat().st_mtime == lease  # nobody has judged
    before = len(harness.attempts())
    assert served_by(harness) == {200}
    assert arms_asked(harness, before) == {address(harness, champion)}
    assert harness.place.problems()["controller"].startswith(
        f"it failed {fault_backoff.FAULTS_MAX} times in the last minute: IsADirectoryError: "
    )
    status.rmdir()
    again = harness.start(None)
    assert (again.status()["state"], again.status()["weight_percent"]) == ("paused", 0.0)


def test_the_status_says_what_the_controller_cannot_do(
    harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fettle.rollout.supervisor import supervisor_launch

    harness.start(harness.release(1))
    harness.place.write_problems({"release abc": "it is not what was signed"})
    monkeypatch.setattr(supervisor_launch, "running", lambda _place: True)
    text = canary_view.text(canary_orders.status(harness.project))
    assert text.splitlines()[1] == "  problem: release abc: it is not what was signed"


def test_the_plan_counts_the_lines_that_it_left_out() -> None:
    doc = json.loads(
        '{"requests": null, "eta_s": null, "until_dead": {}, "needs": [], "refusals": [], '
        '"advice": [], "at_stake_percent": 1, "traffic": {"requests": 0, "assumed": [], '
        '"skipped": 3, "traffic": {"requests_per_s": 1, "errors": 0, "latency_spread": 1, '
        '"cluster_requests": 0}}, "accuracy_margin": 0.01, "disagreement_limit": 0.05}'
    )
    assert "left out: 3 lines of the router's log cannot be read" in canary_view.forecast(doc)
