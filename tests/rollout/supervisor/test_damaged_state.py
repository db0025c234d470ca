"""Damaged state files: what the supervisor's processes read of each other may hold anything."""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rehearsed import RolloutHarness, Users, wait_for

from fettle.adapters import process_identity
from fettle.cli import canary_orders, canary_view
from fettle.errors import ProjectError
from fettle.rollout.router import nginx_process
from fettle.rollout.supervisor import fault_backoff, jsonl, shadow_traffic
from fettle.rollout.supervisor.late_labels import Answered, AnsweredRequests
from fettle.rollout.supervisor.shadow_traffic import HeldOutRequest, ShadowTraffic
from fettle.rollout.supervisor.state_layout import ServingState, StateLayout
from fettle.rollout.supervisor.watchdog import Watchdog

ALIEN = [b"", b"\xff\xfe\x00", b"[" * 5000, b"null", b'{"a": 1}', b"1e999", b'{"pid": -1}']
SERVING = ServingState("127.0.0.1", 1, 2, 3, lease_s=7.0)


@pytest.mark.parametrize("alien", ALIEN)
def test_a_pid_file_or_a_count_of_faults_that_is_none_reads_as_none(
    tmp_path: Path, alien: bytes
) -> None:
    file = tmp_path / "controller.json"
    file.write_bytes(alien)
    assert process_identity.read(file) is None
    (tmp_path / fault_backoff.NAME).write_bytes(alien)
    assert fault_backoff.recent_faults(tmp_path) == (0, "")
    fault_backoff.record_fault(tmp_path, "why")
    assert fault_backoff.recent_faults(tmp_path) == (1, "why")


@pytest.mark.parametrize("alien", [*ALIEN, None])
def test_what_serves_is_read_from_its_copy_and_written_again(
    tmp_path: Path, alien: bytes | None
) -> None:
    place = StateLayout(tmp_path)
    place.write_serving(SERVING)
    file = tmp_path / "serving.json"
    if alien is None:
        file.unlink()
    else:
        file.write_bytes(alien)
    assert place.serving() == SERVING
    assert place.keep_serving(SERVING)
    assert not place.keep_serving(SERVING)
    (tmp_path / "serving.copy.json").unlink()
    assert place.serving() == SERVING


def test_a_changed_byte_that_is_json_still_is_seen(tmp_path: Path) -> None:
    place = StateLayout(tmp_path)
    place.write_serving(SERVING)
    for name in ("serving.json", "serving.copy.json"):
        file = tmp_path / name
        file.write_text(file.read_text().replace('"port": 1', '"port": 9'))
    with pytest.raises(ProjectError) as caught:
        place.serving()
    assert str(caught.value).startswith(
        f"{tmp_path / 'serving.json'} does not say what serves: got its content does not fit its "
        "seal: a byte was changed; "
    )


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"stop-", b"a\0b", None])
def test_the_kill_switch_is_found_by_the_configuration_too(
    tmp_path: Path, damage: bytes | None
) -> None:
    (tmp_path / "nginx.conf").write_text("upstream challenger {}\nif (-f /x/y/stop-r1) { set }\n")
    if damage is not None:
        (tmp_path / nginx_process.KILL_SWITCH).write_bytes(damage)
    nginx_process.engage_kill_switch(tmp_path)
    assert (tmp_path / "stop-r1").exists()


def test_a_lease_dated_tomorrow_is_no_lease(tmp_path: Path) -> None:
    """What a step of the clock leaves: it would have been fresh for a day."""
    place = StateLayout(tmp_path)
    place.router.mkdir()
    (place.router / nginx_process.KILL_SWITCH).write_text("stop-r1")
    place.write_serving(replace(SERVING, lease_s=0.2))
    place.renew_lease()
    later = time.time() + 86_400
    os.utime(place.lease, (later, later))
    watchdog = Watchdog(place, ["true"], cwd=tmp_path)
    process_identity.write(place.controller, process_identity.me())  # it lives, and hangs
    deadline = time.monotonic() + 5
    while not (place.router / "stop-r1").exists() and time.monotonic() < deadline:
        watchdog.tick()
        time.sleep(0.02)
    assert (place.router / "stop-r1").exists()


@pytest.mark.parametrize("damage", [b"", b"1", b"\xff", b"9" * 40])
def test_a_router_is_found_without_its_pid_file(harness: RolloutHarness, damage: bytes) -> None:
    champion = harness.release(1)
    controller = harness.start(champion)
    master = nginx_process.running(harness.place.router)
    (harness.place.router / "nginx.pid").write_bytes(damage)
    assert nginx_process.running(harness.place.router) == master
    controller.tick()
    assert harness.place.problems() == {}
    nginx_process.terminate(harness.place.router, timeout_s=2)
    assert nginx_process.running(harness.place.router) is None


@pytest.mark.parametrize("alien", [*ALIEN, None])
def test_a_release_that_serves_is_found_without_its_file_and_not_started_twice(
    harness: RolloutHarness, alien: bytes | None
) -> None:
    champion = harness.release(1)
    controller = harness.start(champion)
    before = harness.arm(champion)
    file = harness.place.arms / champion.release / "server.json"
    if alien is None:
        file.unlink()
    else:
        file.write_bytes(alien)
    with Users(harness.serving.port, count=1) as users:
        end = time.monotonic() + 1.5
        harness.tick_while(lambda: time.monotonic() < end)
    assert set(users.statuses) == {200}
    after = harness.arm(champion)
    assert before is not None
    assert after is not None
    assert (after.pid, after.port) == (before.pid, before.port)
    assert json.loads(file.read_text())["pid"] == before.pid
    assert controller.serving.champion == champion


def test_a_name_shown_that_is_damaged_is_written_anew(harness: RolloutHarness) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    with Users(harness.serving.port):
        controller.obey(harness.order(challenger))
        harness.tick_until("shadow", "step")
        shown = harness.place.rollout(str(controller.status()["rollout"])) / "aliases.done"
        shown.with_suffix(".json").rename(shown)
        shown.write_bytes(b"[" * 5000)
        controller.obey({"verb": "abort"})
    assert json.loads(shown.with_suffix(".json").read_text())["over"] == challenger.release


@pytest.mark.parametrize("alien", ALIEN)
def test_a_status_that_cannot_be_read_is_shown_by_what_serves(
    harness: RolloutHarness, alien: bytes
) -> None:
    champion, challenger = harness.release(1), harness.release(2)
    controller = harness.start(champion)
    with Users(harness.serving.port):
        controller.obey(harness.order(challenger))
        harness.tick_until("shadow", "step")
        controller.obey({"verb": "abort"})
    rollout = str(controller.status()["rollout"])
    file = harness.place.rollout(rollout) / "status.json"
    file.write_bytes(alien)
    shown = canary_orders.status(harness.project)
    assert (shown["state"], shown["challenger"]) == ("aborted", challenger.release)
    assert f"{file} cannot be read" in canary_view.text(shown)


def test_shadow_pairs_that_a_full_disk_does_not_take_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gone" / "shadow.jsonl"  # a folder that is not there stands for the disk
    monkeypatch.setattr(shadow_traffic, "DISK_AGAIN_S", 0.05)
    held = [HeldOutRequest(b"", "1")] * 45
    shadow = ShadowTraffic(path, held, ports=lambda: (1, 1), key=None, requests=45, per_s=1e4)
    time.sleep(0.3)
    path.parent.mkdir()
    wait_for(lambda: len(jsonl.read(path, 0)[0]) == 45)
    shadow.stop()
    numbers = [doc["request_id"] for doc in jsonl.read(path, 0)[0]]
    assert numbers == [f"shadow-{at}" for at in range(45)]


def test_a_label_that_a_full_disk_does_not_take_may_come_again(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "labels.jsonl"
    memory = AnsweredRequests({"champion": ["a", "b"]}, path)
    memory.remember("r1", Answered("champion", (0,)))
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        memory.join([("r1", ("a",))], 1.0)
    path.parent.mkdir()
    assert memory.join([("r1", ("a",))], 2.0) == {"accepted": 1, "unknown": 0, "repeated": 0}
