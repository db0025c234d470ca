"""`fettle canary forget`: a finished rollout is watched no more, whatever became of its files."""

from __future__ import annotations

import pytest
from rehearsed import RolloutHarness, Users, wait_for

from fettle.errors import BusyError, UserError
from fettle.rollout.supervisor import order_queue


def test_there_is_nothing_to_forget_before_the_first_rollout(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    with pytest.raises(UserError) as caught:
        controller.obey({"verb": "forget"})
    assert str(caught.value) == (
        "there is no rollout to forget. Fix: `fettle canary status` says so too."
    )


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("end", ["abort", "promote"])
def test_a_finished_rollout_is_forgotten_and_what_serves_serves_on(
    harness: RolloutHarness, end: str, damaged: bool
) -> None:
    champion, challenger = harness.release(1), harness.release(2, answer="2")
    controller = harness.start(champion)
    with Users(harness.serving.port) as users:
        controller.obey(harness.order(challenger))
        harness.tick_until("shadow", "step")
        with pytest.raises(BusyError) as caught:
            controller.obey({"verb": "forget"})
        assert str(caught.value).startswith("a rollout that is under way is not forgotten: got ")
        controller.obey({"verb": end})
        harness.tick_until("aborted", "promoted")
        rollout = str(controller.status()["rollout"])
        journal = harness.place.rollout(rollout) / "journal.jsonl"
        if damaged:
            journal.write_bytes(b"\xff")
            controller.close()
            controller = harness.start(None)
        answer = controller.obey({"verb": "forget"})
        controller.tick()
    kept, gone = (challenger, champion) if end == "promote" else (champion, challenger)
    assert answer == {
        "state": "idle",
        "reason": f"{rollout} is watched no more; {kept.release} serves",
    }
    assert set(users.statuses) == {200}
    serving = harness.place.serving()
    assert serving is not None
    assert (serving.champion, serving.challenger, serving.rollout) == (kept, None, None)
    wait_for(lambda: harness.arm(gone) is None, timeout_s=20)
    assert harness.arm(kept) is not None
    assert journal.is_file()
    with Users(harness.serving.port):
        controller.obey(harness.order(harness.release(3)))
        harness.tick_until("shadow", "step")


def test_a_broken_rollout_is_forgotten_as_it_is_aborted(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    with Users(harness.serving.port):
        controller.obey(harness.order(challenger))
        harness.tick_until("shadow", "step")
        rollout = str(controller.status()["rollout"])
        (harness.place.rollout(rollout) / "journal.jsonl").write_bytes(b"\xff")
        controller.close()
        controller = harness.start(None)
        assert controller.status()["state"] == "broken"
        name = order_queue.submit_order(harness.place, {"verb": "forget"})
        controller.tick()
    assert order_queue.await_answer(harness.place, name, timeout_s=1) == {
        "state": "aborted",
        "reason": f"{rollout} is put away unread; {champion.release} serves",
    }
