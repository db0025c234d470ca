"""What cannot be read takes no service down: journals, orders, log lines, labels."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from certified import certificate
from rehearsed import Theatre, Users

from fettle.cli import canary_orders, canary_view
from fettle.errors import UserError
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor import fault_backoff
from fettle.rollout.supervisor import state_layout as places
from fettle.rollout.supervisor.evidence_collector import BAD_MOST
from fettle.rollout.supervisor.state_layout import PinnedRelease

UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}


def served_by(theatre: Theatre) -> set[int]:
    with Users(theatre.serving.port) as users:
        deadline = time.monotonic() + 10
        while sum(users.statuses.values()) < 40 and time.monotonic() < deadline:
            time.sleep(0.02)
    return set(users.statuses)


def arms_asked(theatre: Theatre, since: int) -> set[str]:
    return {line["addr"] for line in theatre.attempts()[since:]}


def address(theatre: Theatre, release: PinnedRelease) -> str:
    found = theatre.arm(release)
    assert found is not None
    return found.address


def at_step(theatre: Theatre) -> tuple[PinnedRelease, PinnedRelease, Path]:
    """A rollout at its 50 %; returns the releases and its journal. The controller is closed."""
    champion, challenger = theatre.release(1), theatre.release(2)
    controller = theatre.start(champion)
    controller.obey(theatre.order(challenger, **UNDECIDED))
    with Users(theatre.serving.port):
        status = theatre.tick_until("step")
        theatre.tick_while(lambda: controller.challenger_requests() < 10)
    controller.close()
    return champion, challenger, theatre.place.rollout(status["rollout"]) / "journal.jsonl"


def reword(journal: Path) -> None:
    """What an upgrade that says a reason otherwise makes of every old journal."""
    journal.write_text(journal.read_text().replace('"reason":"', '"reason":"in short: ', 1))


def other_version(journal: Path) -> None:
    journal.write_text(journal.read_text().replace('"version":2', '"version":99', 1))


def garbage(journal: Path) -> None:
    journal.write_bytes(b"\xff\x00\n")


def no_folder(journal: Path) -> None:
    shutil.rmtree(journal.parent)


DAMAGE = [reword, other_version, garbage, no_folder]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_journal_that_cannot_be_folded_costs_the_challenger_its_traffic_and_no_user(
    theatre: Theatre, damage: object
) -> None:
    champion, challenger, journal = at_step(theatre)
    damage(journal)  # type: ignore[operator]  # one of DAMAGE
    controller = theatre.start(None)
    before = len(theatre.attempts())
    assert served_by(theatre) == {200}
    controller.tick()
    assert arms_asked(theatre, before) == {address(theatre, champion)}
    status = controller.status()
    assert (status["state"], status["weight_percent"]) == ("broken", 0.0)
    said = theatre.place.problems()[f"rollout {journal.parent.name}"]
    assert said.startswith("it cannot be read: ")
    with pytest.raises(UserError, match="is not watched, so it cannot resume"):
        controller.obey({"verb": "resume"})
    assert controller.obey({"verb": "abort"}) == {
        "state": "aborted",
        "reason": f"{journal.parent.name} is put away unread; {champion.release} serves",
    }
    time.sleep(1.0)  # rollouts are named by the second
    controller.obey(theatre.order(challenger, **UNDECIDED))
    assert controller.status()["state"] != "broken"


@pytest.mark.parametrize(
    ("damage", "end"),
    [(garbage, "abort"), (no_folder, "abort"), (reword, "promote"), (other_version, "promote")],
)
def test_a_finished_rollout_never_keeps_the_service_down(
    theatre: Theatre, damage: object, end: str
) -> None:
    champion, challenger, journal = at_step(theatre)
    controller = theatre.start(None)
    with Users(theatre.serving.port):
        controller.obey({"verb": end})
        theatre.tick_until("aborted", "promoted")
    controller.close()
    nginx_process.terminate(theatre.place.router, timeout_s=2)
    for release in (champion, challenger):
        theatre.stop_arm(release)
    damage(journal)  # type: ignore[operator]  # one of DAMAGE
    theatre.start(None).tick()
    assert served_by(theatre) == {200}
    live = challenger if end == "promote" else champion
    assert {line["addr"] for line in theatre.attempts()[-10:]} == {address(theatre, live)}


def test_a_deleted_challenger_of_an_aborted_rollout_keeps_nothing_down(theatre: Theatre) -> None:
    _, challenger, _ = at_step(theatre)
    controller = theatre.start(None)
    controller.obey({"verb": "abort"})
    controller.close()
    shutil.rmtree(challenger.folder)
    theatre.start(None).tick()
    assert served_by(theatre) == {200}


def test_torn_labels_are_left_out_and_orders_are_obeyed(theatre: Theatre) -> None:
    _, _, journal = at_step(theatre)
    (journal.parent / "labels.jsonl").write_bytes(b'{"request_id": "a", "ti\n\xff\n[]\n')
    controller = theatre.start(None)
    controller.tick()
    assert controller.status()["skipped"] == 3
    assert controller.obey({"verb": "abort"})["state"] == "aborted"


def test_a_few_bad_lines_are_left_out_and_too_many_take_the_weight_away(theatre: Theatre) -> None:
    at_step(theatre)
    controller = theatre.start(None)
    log = theatre.place.router / "attempts.log"
    with log.open("ab") as out:
        out.write(b'{"status":000}\n' * (BAD_MOST - 1) + b"\xff\n")
    controller.tick()
    assert (controller.status()["state"], controller.status()["skipped"]) == ("step", BAD_MOST)
    with log.open("ab") as out:
        out.write(b"\xed\xa0\x80\n" * BAD_MOST)
    status = theatre.tick_until("paused")
    assert status["weight_percent"] == 0
    assert status["reason"] == "the analysis failed at 50 %: weight 0"
    assert controller.obey({"verb": "resume"})["state"] == "step"  # a person has seen them
    controller.tick()
    assert controller.status()["state"] == "step"


def test_garbage_in_the_inbox_ends_nothing_and_the_next_order_is_obeyed(theatre: Theatre) -> None:
    at_step(theatre)
    controller = theatre.start(None)
    (theatre.place.inbox).mkdir(exist_ok=True)
    (theatre.place.inbox / "1.json").write_text("{}")
    bad = places.submit_order(
        theatre.place, {"verb": "start", "challenger": 7, "plan": {"steps": []}}
    )
    good = places.submit_order(theatre.place, {"verb": "abort"})
    worse = places.submit_order(
        theatre.place, {"verb": "start", "challenger": 7, "plan": {"steps": []}}
    )
    controller.tick()
    answers = [places.await_answer(theatre.place, name, timeout_s=0) for name in (bad, good, worse)]
    assert [str((answer or {}).get("error", ""))[:43] for answer in answers] == [
        "a rollout is under way already: got " + theatre.place.rollouts()[0][:7],
        "",
        "the order to start cannot be understood: go",
    ]


def test_a_plan_that_the_router_cannot_take_begins_nothing(theatre: Theatre) -> None:
    controller = theatre.start(theatre.release(1))
    order = theatre.order(theatre.release(2), sticky_key="cookie:session-id")
    with pytest.raises(UserError, match=r"cookie:NAME \(letters, digits, _\)"):
        controller.obey(order)
    assert theatre.place.rollouts() == []
    assert served_by(theatre) == {200}


def test_routes_that_nginx_refuses_begin_nothing(theatre: Theatre, tmp_path: Path) -> None:
    pair = certificate(tmp_path / "tls")
    theatre.serving = replace(
        theatre.serving, certificate=str(pair[0]), certificate_key=str(pair[1])
    )
    controller = theatre.start(theatre.release(1))
    pair[0].unlink()
    with pytest.raises(UserError, match="nginx refuses the router's configuration"):
        controller.obey(theatre.order(theatre.release(2)))
    assert theatre.place.rollouts() == []


def test_a_controller_that_fails_in_every_tick_sends_nobody_to_the_challenger(
    theatre: Theatre,
) -> None:
    champion, _, journal = at_step(theatre)
    status = journal.parent / "status.json"
    status.unlink()
    status.mkdir()  # so that no tick ends
    switch = theatre.place.router / f"stop-{journal.parent.name}"
    for before_this in range(fault_backoff.FAULTS_MAX):
        controller = theatre.start(None)
        assert switch.exists() == (before_this > 0)  # a start alone does not take it back
        lease = theatre.place.lease.stat().st_mtime
        with pytest.raises(IsADirectoryError) as caught:
            controller.tick()
        controller.fail(caught.value)
        controller.close()
        assert theatre.place.lease.stat().st_mtime == lease  # nobody has judged
    before = len(theatre.attempts())
    assert served_by(theatre) == {200}
    assert arms_asked(theatre, before) == {address(theatre, champion)}
    assert theatre.place.problems()["controller"].startswith(
        f"it failed {fault_backoff.FAULTS_MAX} times in the last minute: IsADirectoryError: "
    )
    status.rmdir()
    again = theatre.start(None)
    assert (again.status()["state"], again.status()["weight_percent"]) == ("paused", 0.0)


def test_the_status_says_what_the_controller_cannot_do(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fettle.rollout.supervisor import supervisor_launch

    theatre.start(theatre.release(1))
    theatre.place.write_problems({"release abc": "it is not what was signed"})
    monkeypatch.setattr(supervisor_launch, "running", lambda _place: True)
    text = canary_view.text(canary_orders.status(theatre.project))
    assert text.splitlines()[1] == "  problem: release abc: it is not what was signed"


def test_the_plan_counts_the_lines_that_it_left_out() -> None:
    doc = json.loads(
        '{"requests": null, "eta_s": null, "until_dead": {}, "needs": [], "refusals": [], '
        '"advice": [], "at_stake_percent": 1, "traffic": {"requests": 0, "assumed": [], '
        '"skipped": 3, "traffic": {"requests_per_s": 1, "errors": 0, "latency_spread": 1, '
        '"design_effect": 1}}}'
    )
    assert "left out: 3 lines of the router's log cannot be read" in canary_view.forecast(doc)
