"""What serves is kept up: a dead router, a dead master, a Bento whose bytes were changed."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from rehearsed import RolloutHarness, Users, wait_for

from fettle.adapters import bento_store
from fettle.errors import TamperedError
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor.state_layout import PinnedRelease

UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}


def source(release: PinnedRelease) -> Path:
    """A file of the Bento that runs, which the release folder does not hold."""
    return bento_store.bento_folder(release.tag) / "bento.yaml"


def tamper(release: PinnedRelease) -> None:
    with source(release).open("a") as out:
        out.write("# one more line\n")


def answers(harness: RolloutHarness) -> bool:
    with Users(harness.serving.port, count=1) as users:
        deadline = time.monotonic() + 5
        while not users.statuses[200] and time.monotonic() < deadline:
            time.sleep(0.02)
    return users.statuses[200] > 0


def workers(harness: RolloutHarness) -> tuple[int, list[psutil.Process]]:
    pid = nginx_process.running(harness.place.router)
    assert pid is not None
    return pid, psutil.Process(pid).children()


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(harness: RolloutHarness) -> bool:
    return nginx_process.running(harness.place.router) is None


@pytest.mark.parametrize("whole", [True, False], ids=["with its worker", "alone"])
def test_a_router_whose_master_is_killed_is_started_again(
    harness: RolloutHarness, whole: bool
) -> None:
    controller = harness.start(harness.release(1))
    assert answers(harness)
    pid, below = workers(harness)
    os.kill(pid, signal.SIGKILL)
    for worker in below if whole else []:
        worker.kill()
    wait_for(lambda: gone(harness))
    deadline = time.monotonic() + 15
    while gone(harness) and time.monotonic() < deadline:
        controller.tick()
        time.sleep(0.05)
    assert answers(harness)
    assert workers(harness)[0] != pid
    assert not any(lives(worker) for worker in below)
    assert harness.place.problems() == {}


def test_a_router_whose_worker_is_killed_answers_on(harness: RolloutHarness) -> None:
    harness.start(harness.release(1))
    for worker in workers(harness)[1]:
        worker.kill()
    assert answers(harness)


def test_an_end_leaves_no_orphan_on_the_port(harness: RolloutHarness) -> None:
    harness.start(harness.release(1))
    pid, below = workers(harness)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: gone(harness))
    assert [one.pid for one in nginx_process.orphans(harness.place.router)] == [
        one.pid for one in below
    ]
    assert nginx_process.orphans(harness.place.folder / "another") == []
    nginx_process.terminate(harness.place.router)
    assert not any(lives(worker) for worker in below)
    bento_store.check_port("127.0.0.1", harness.serving.port)


def test_a_router_that_cannot_be_started_is_said_and_ends_nothing(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    nginx_process.terminate(harness.place.router, timeout_s=1)
    with socket.create_server(("127.0.0.1", harness.serving.port)):
        controller.tick()
    assert harness.place.problems()["router"].startswith("the router cannot listen on 127.0.0.1 ")


def test_a_champion_that_was_tampered_with_is_not_started_again(harness: RolloutHarness) -> None:
    champion = harness.release(1)
    controller = harness.start(champion)
    assert answers(harness)
    tamper(champion)
    controller.kill(champion.release)
    began = (harness.place.arms / champion.release / "server.json").read_text()
    for _ in range(12):
        controller.tick()
        time.sleep(0.1)
    assert (harness.place.arms / champion.release / "server.json").read_text() == began
    said = harness.place.problems()[f"release {champion.release}"]
    assert said.startswith(
        f"{bento_store.bento_folder(champion.tag)} is not what was signed: got changed"
    )


def test_at_the_start_of_a_controller_the_bytes_are_verified_too(harness: RolloutHarness) -> None:
    champion = harness.release(1)
    harness.start(champion).close()
    harness.stop_arm(champion)
    tamper(champion)
    controller = harness.start(None)
    controller.tick()
    assert f"release {champion.release}" in harness.place.problems()
    assert harness.arm(champion) is None


def test_after_a_promotion_the_old_release_serves_where_the_new_was_tampered_with(
    harness: RolloutHarness,
) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    harness.start(champion)
    with Users(harness.serving.port):
        harness.promote(challenger)
    assert harness.controller is not None
    harness.controller.close()
    for release in (champion, challenger):
        harness.stop_arm(release)
    tamper(challenger)
    harness.start(None).tick()
    assert harness.arm(challenger) is None
    assert answers(harness)


def test_a_challenger_whose_bento_was_changed_begins_nothing(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    challenger = harness.release(2)
    tamper(challenger)
    with pytest.raises(TamperedError, match="is not what was signed"):
        controller.obey(harness.order(challenger))
    assert harness.arm(challenger) is None
    assert harness.place.rollouts() == []


def test_a_challenger_that_was_changed_meets_no_user_after_a_pause(harness: RolloutHarness) -> None:
    controller = harness.start(harness.release(1))
    challenger = harness.release(2)
    controller.obey(harness.order(challenger, **UNDECIDED))
    harness.tick_until("step")
    controller.obey({"verb": "pause"})
    controller.kill(challenger.release)
    tamper(challenger)
    with pytest.raises(TamperedError):
        controller.obey({"verb": "resume"})
    assert controller.status()["state"] == "paused"
    assert harness.arm(challenger) is None
