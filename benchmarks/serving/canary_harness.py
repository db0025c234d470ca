"""Run the supervisor on a scratch folder, its releases copies of one: `python -m … ROOT FOLDER`.

A release "DIGEST-KIND" is served from DIGEST's Bento: as it is, or broken
(fettle/rollout/supervisor/fault_injection.py) when KIND is one of its modes. The controller is a
process of its own, so that it can be killed; its watchdog is the benchmark.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypedDict

from fettle import project as projects
from fettle.adapters import bento_store, process_identity
from fettle.json_values import JsonObject
from fettle.rollout.router import model_servers, nginx_process
from fettle.rollout.supervisor import (
    fault_injection,
    load_generator,
    order_queue,
    rehearsal,
    shadow_traffic,
)
from fettle.rollout.supervisor.controller import TICK_S, Controller
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout
from fettle.rollout.supervisor.status_document import RolloutStatus
from fettle.rollout.supervisor.watchdog import Watchdog
from fettle.serving import api_key_file

WAIT_S = 120.0
# Steps that wait for an order, so that the benchmark says when what happens.
PLAN = {
    **rehearsal.PLAN,
    "shadow_gates": [],
    "step_min_s": 0.0,
    "alpha_promote": 1e-300,
    "bake_s": 1.0,
    "lease_s": 30.0,
}


class TrafficCounts(TypedDict):
    """What the users counted (fettle/rollout/supervisor/load_generator.py)."""

    sent: int
    failed: int
    statuses: dict[str, int]
    errors: dict[str, int]
    p50_ms: float
    p99_ms: float


def command(release: str, bento: Path, port: int) -> list[str]:
    """Return how the harness serves a release."""
    kind = release.split("-")[1]
    if kind in fault_injection.Fault.__members__.values():
        return fault_injection.command(fault_injection.Fault(kind), bento, port)
    return bento_store.serve_folder_command(bento, port=port)


class CanaryHarness:
    """A supervisor with a champion; `users` are started by `ask`."""

    def __init__(self, root: Path, release: Path, scratch: Path) -> None:
        self.root, self._release = root, release
        self.place = StateLayout(scratch / "canary")
        self.place.router.mkdir(parents=True)
        self.requests = scratch / "requests"
        load_generator.write(
            self.requests, shadow_traffic.held_out_requests([root], release)[: rehearsal.REQUESTS]
        )
        self.port, control, feedback = model_servers.free_ports(3)
        champion = self.release("champion-0")
        serving = ServingState(
            "127.0.0.1", self.port, control, feedback, champion=champion, lease_s=30.0
        )
        self.place.write_serving(serving)
        module = [sys.executable, "-m", "benchmarks.serving.canary_harness"]
        self._watchdog = Watchdog(
            self.place, [*module, str(root), str(self.place.folder)], cwd=root
        )
        self.arms = model_servers.ModelServers(self.place.arms, os.environ, key=None)
        self._users: subprocess.Popen[str] | None = None

    def release(self, kind: str) -> PinnedRelease:
        """Name a copy of the release: "good-1", "failing-2"."""
        folder = self._release
        name = json.loads((folder / "release.json").read_text())["name"]
        return PinnedRelease(f"{folder.name}-{kind}", f"{name}:{folder.name}", str(folder))

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Be the watchdog until something holds. Raises RuntimeError when it does not come true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                log = self.place.folder / "controller.log"
                said = log.read_text()[-2000:] if log.is_file() else ""
                raise RuntimeError(f"{what} did not happen within {timeout_s:g} s\n{said}")
            self._watchdog.tick()
            time.sleep(0.05)

    def open(self) -> None:
        """Wait until the public address answers an inference."""
        key = api_key_file.read(os.environ)
        self.wait(lambda: model_servers.answers(self.port, key), "the first answer")

    def run_for(self, seconds: float) -> None:
        """Be the watchdog for a while."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end, "time", seconds + 1)

    def order(self, **order: object) -> JsonObject:
        """Give an order and return what became of it."""
        name = order_queue.submit_order(self.place, order)
        file = self.place.outbox / f"{name}.json"
        self.wait(file.is_file, f"an answer to {order['verb']}")
        answer = order_queue.await_answer(self.place, name, timeout_s=1)
        assert answer is not None
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        return answer

    def start(self, kind: str) -> str:
        """Begin a rollout and wait for its first step; return its id."""
        answer = self.order(verb="start", challenger=asdict(self.release(kind)), plan=PLAN)
        self.reach("step")
        return str(answer["rollout"])

    def reach(self, *states: str) -> None:
        """Wait until the rollout is in one of these states."""
        self.wait(lambda: self.status().get("state") in states, " or ".join(states))

    def status(self) -> RolloutStatus:
        """Return status.json of the rollout."""
        serving = self.place.serving()
        assert serving is not None
        file = self.place.rollout(serving.rollout or "none") / "status.json"
        found: RolloutStatus = json.loads(file.read_text()) if file.is_file() else {}
        return found

    def controller(self) -> process_identity.ProcessIdentity | None:
        """Return the controller's process."""
        return process_identity.read(self.place.controller)

    def ask(self, per_s: float, *, port: int | None = None, labels: bool = True) -> None:
        """Start the users."""
        asking = load_generator.command(port or self.port, per_s, self.requests, labels=labels)
        self._users = subprocess.Popen(asking, stdout=subprocess.PIPE, text=True)

    def answered(self) -> TrafficCounts:
        """Send the users home; return what they counted."""
        assert self._users is not None
        self._users.send_signal(signal.SIGTERM)
        counts: TrafficCounts = json.loads(self._users.communicate(timeout=90)[0])
        self._users = None
        return counts

    def close(self) -> None:
        """End everything."""
        if self._users is not None:
            self._users.kill()
            self._users.wait()
        if (known := self.controller()) is not None:
            known.end(timeout_s=10)
        nginx_process.terminate(self.place.router, timeout_s=2)
        for server in self.arms.running():
            self.arms.kill(server.release)


def main() -> None:
    """Run the controller of a harness."""
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    project = projects.find(root)
    os.environ.update(projects.environment(project))
    where = StateLayout(folder)
    serving = where.serving()
    assert serving is not None
    process_identity.write(where.controller, process_identity.me())
    controller = Controller(project, where, replace(serving), command=command, alone=True)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda got, _frame: stopped.append(got))
    controller.start()
    while not stopped:
        controller.tick()
        if not controller.behind:
            time.sleep(TICK_S)
    controller.close()


if __name__ == "__main__":
    main()
