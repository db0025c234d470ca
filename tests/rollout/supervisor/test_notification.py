"""Whoever wants to be told is told, once, and what serves never waits for it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from rehearsed import RolloutHarness, Users, wait_for

from fettle.errors import UserError
from fettle.rollout.supervisor import notification
from fettle.rollout.supervisor.state_layout import StateLayout
from fettle.rollout.supervisor.watchdog import DEATHS_MAX, Watchdog

UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}
APPEND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"


class Listener:
    """A webhook on loopback; the first `failing` requests are answered with 500."""

    def __init__(self, failing: int = 0) -> None:
        self.got: list[dict[str, Any]] = []
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked += 1
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                ok = outer.asked > failing
                if ok:
                    outer.got.append(body)
                self.send_response(200 if ok else 500)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def told(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_pause_and_roll_back_are_told_to_the_webhook_and_the_command(
    harness: RolloutHarness,
    listener: Listener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "told with a space.jsonl"
    monkeypatch.setenv(notification.WEBHOOK, listener.url)
    words = f"{sys.executable} -c \"{APPEND}\" '{path}'"
    monkeypatch.setenv(notification.COMMAND, words)
    controller = harness.start(harness.release(1))
    challenger = harness.release(2)
    with Users(harness.serving.port):
        controller.obey(harness.order(challenger, **UNDECIDED))
        harness.tick_until("step")
        controller.obey({"verb": "pause"})
        wait_for(lambda: len(told(path)) == 1, timeout_s=20)
        controller.obey({"verb": "resume"})
        harness.fail(challenger).touch()
        harness.tick_until("rolled_back")
        wait_for(lambda: len(told(path)) == 2, timeout_s=20)
    assert told(path) == listener.got
    paused, back = listener.got
    assert (paused["event"], paused["reason"]) == ("paused", "paused by order")
    assert (back["event"], back["challenger"]) == ("rolled_back", challenger.release)
    assert back["reason"].startswith("a gate failed at ")
    assert set(back) == set(notification.NotifiedEvent.__annotations__)


def test_a_controller_that_starts_again_tells_nothing_twice_and_nothing_new_is_lost(
    harness: RolloutHarness, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = harness.start(harness.release(1))
    with Users(harness.serving.port):
        controller.obey(harness.order(harness.release(2), **UNDECIDED))
        harness.tick_until("step")
    for _ in range(2):  # the pause was decided and nobody was told: as after a kill
        monkeypatch.setenv(notification.WEBHOOK, listener.url)
        controller.obey({"verb": "pause"})
        controller.close()
        controller = harness.start(None)
        controller.tick()
    wait_for(lambda: len(listener.got) == 1, timeout_s=20)
    time.sleep(1)
    assert [one["event"] for one in listener.got] == ["paused"]


def test_a_promotion_is_told(
    harness: RolloutHarness, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(notification.WEBHOOK, listener.url)
    harness.start(harness.release(1))
    challenger = harness.release(2)
    with Users(harness.serving.port):
        harness.promote(challenger)
        harness.tick_while(lambda: not listener.got)
    assert [(one["event"], one["challenger"]) for one in listener.got] == [
        ("promoted", challenger.release)
    ]


def test_a_crash_loop_is_told_once(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(notification.WEBHOOK, listener.url)
    place = StateLayout(tmp_path)
    place.router.mkdir()
    watchdog = Watchdog(place, [sys.executable, "-c", "raise SystemExit('boom')"], cwd=tmp_path)
    deadline = time.monotonic() + 30
    while len(watchdog._deaths) < DEATHS_MAX and time.monotonic() < deadline:
        watchdog._next_start = 0.0
        watchdog.tick()
        time.sleep(0.02)
    for _ in range(20):
        watchdog.tick()
        time.sleep(0.02)
    wait_for(lambda: bool(listener.got), timeout_s=20)
    time.sleep(1)
    assert [(one["event"], one["reason"]) for one in listener.got] == [("crash_loop", "boom")]


def test_a_webhook_that_fails_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Listener(failing=2)
    monkeypatch.setattr(notification, "AGAIN_S", (0.01, 0.01))
    try:
        assert notification._post(busy.url, {"event": "paused"})
        assert (busy.asked, busy.got) == (3, [{"event": "paused"}])
    finally:
        busy.close()
    assert not notification._post(busy.url, {"event": "paused"})


def test_a_command_that_is_missing_ends_nothing() -> None:
    assert not notification._run(["/nowhere/hook"], {"event": "paused"})
    assert not notification._run([sys.executable, "-c", "raise SystemExit(3)"], {})


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (notification.WEBHOOK, "ftp://a/b", "FETTLE_WEBHOOK is no address: got ftp://a/b; "),
        (notification.WEBHOOK, "slack", "FETTLE_WEBHOOK is no address: got slack; "),
        (notification.COMMAND, "a 'b", 'FETTLE_HOOK_COMMAND is no command line: got "a \'b" ('),
        (notification.COMMAND, " ", "FETTLE_HOOK_COMMAND is no command line: got ' ' (no word); "),
    ],
)
def test_a_hook_that_can_tell_nobody_is_refused(name: str, value: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        notification.check({name: value})
    assert str(caught.value).startswith(text)
    notification.check({notification.WEBHOOK: "https://a:1/b", notification.COMMAND: "mail a@b"})
