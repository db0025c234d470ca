"""A full disk stops the rollout at the champion, and says so."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple

import pytest
from rehearsed import RolloutHarness, Users

from fettle.cli import canary_orders, canary_view

UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}
Usage = namedtuple("Usage", ["total", "used", "free"])


def test_a_full_disk_stops_the_rollout_at_the_champion_with_a_clear_word(
    harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = harness.start(harness.release(1))
    with Users(harness.serving.port) as users:
        controller.obey(harness.order(harness.release(2), **UNDECIDED))
        harness.tick_until("step")
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", _no_space)
            with pytest.raises(OSError, match="No space left") as caught:
                harness.tick_while(lambda: True)
        controller.fail(caught.value)  # as the controller's process does, which then ends
        before = len(harness.attempts())
    with Users(harness.serving.port) as users:
        while users.statuses[200] < 200:
            pass
    late = harness.attempts()[before + 20 :]  # what had begun before the switch
    assert set(users.statuses) == {200}
    assert {line["arm"] for line in late} == {"champion"}
    assert canary_orders.status(harness.project)["weight_percent"] == 0
    assert harness.place.problems()["controller"] == (
        "it failed 1 times in the last minute: the disk is full, so nothing can be written down "
        "([Errno 28] No space left on device)"
    )


def test_a_status_says_that_the_disk_is_full_though_nothing_could_be_written(
    harness: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.start(harness.release(1))
    assert "problems" not in canary_orders.status(harness.project)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 4096))
    text = canary_view.text(canary_orders.status(harness.project))
    assert text.splitlines()[1:] == [
        "  problem: disk: it is full, 4,096 bytes are left: until there is room the challenger "
        "gets no user; `fettle gc` shows what may go"
    ]


def _no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
