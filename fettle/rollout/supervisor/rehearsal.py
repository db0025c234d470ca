"""Rehearsal (fire drill) of whole rollouts on local traffic: a good challenger, broken ones.

All is real but the users: router, servers, controller, journal, load. Each case has a folder of
its own below `.fettle/rehearsal`; MLflow and the served champion are not touched. A short plan
with wide margins keeps it to minutes, so what passes here has not passed the real one.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from fettle.adapters import bento_store
from fettle.errors import ProjectError
from fettle.project import Project
from fettle.rollout.promotion.rollout_state import Phase, is_over
from fettle.rollout.router import model_servers, nginx_process
from fettle.rollout.supervisor import fault_injection, load_generator, shadow_traffic
from fettle.rollout.supervisor.controller import TICK_S, Controller
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout
from fettle.rollout.supervisor.status_document import RolloutStatus

PER_S = 100.0  # what two cores can do beside two servers, the router and the controller
REQUESTS = 500  # different bodies; then from the start
CASE_MAX_S = 300.0
END_S = 20.0

# Wide margins and short waits: about 1,000 requests a case. Real plans stand in params.yaml.
PLAN: Mapping[str, object] = {
    "shadow_requests": 200,
    "shadow_gates": ["accuracy", "disagreement"],
    "steps": [
        {"weight_percent": 20.0, "margin_multiplier": 2.0, "gates": ["errors"]},
        {"weight_percent": 50.0, "margin_multiplier": 1.0, "gates": ["errors", "latency"]},
    ],
    "step_min_s": 1.0,
    "step_budget_requests": 8000,  # a first look after 2,132
    "bake_s": 3.0,
    "bake_requests": 200,
    "alpha_rollback": 0.01,
    "alpha_promote": 0.05,
    "errors_margin": 0.05,
    "accuracy_margin": 0.05,
    "latency_p95_ratio": 2.0,
    "disagreement_max": 0.1,
    "both_failing_max": 0.2,
    "drift_tolerance": 0.1,
    "sticky_key": None,
    "lease_s": 10.0,
}


class RehearsalCase(StrEnum):
    """What the challenger is.

    At its first step `failing` begins to answer every request with 500, and `dead` is killed
    (SIGKILL, workers and all).
    """

    GOOD = "good"
    SLOW = "slow"
    WRONG = "wrong"
    FAILING = "failing"
    DEAD = "dead"


WANTED = dict.fromkeys(RehearsalCase, Phase.ROLLED_BACK) | {RehearsalCase.GOOD: Phase.PROMOTED}


@dataclass(frozen=True, slots=True)
class RehearsalResult:
    """How a case went; `gate` failed, `failed` counts user requests without a whole 200."""

    case: RehearsalCase
    state: str
    gate: str
    reason: str
    seconds: float
    sent: int
    failed: int
    challenger_requests: int
    p99_ms: float

    @property
    def as_wanted(self) -> bool:
        """Whether it ended as it had to, and no user noticed."""
        return self.state == WANTED[self.case].value and self.failed == 0

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form."""
        return {**asdict(self), "as_wanted": self.as_wanted}


def rehearse(
    project: Project, release: PinnedRelease, case: RehearsalCase, *, say: Callable[[str], None]
) -> RehearsalResult:
    """Play one case with `release` on both arms.

    Raises ProjectError when the project no longer has the test split of the release.
    """
    folder = project.state / "rehearsal" / case.value
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    held = shadow_traffic.held_out_requests(
        [project.tree, *project.state.glob("ws/*")], Path(release.folder)
    )
    if not held:
        raise ProjectError(
            "there are no requests to rehearse with",
            got=f"no artifacts/ingest with the data of release {release.release}",
            rule="the test split makes the traffic",
            fix="run `fettle run`",
        )
    load_generator.write(folder / "requests", held[:REQUESTS])
    stage = RehearsalStage(project, StateLayout(folder), release, case)
    try:
        return stage.play(say)
    finally:
        stage.close()


class RehearsalStage:
    """One case: its controller in this process, its users in another."""

    def __init__(
        self, project: Project, where: StateLayout, release: PinnedRelease, case: RehearsalCase
    ) -> None:
        self._case, self._place, self._release = case, where, release.release
        port, control, feedback = model_servers.free_ports(3)
        champion = replace(release, release=f"{release.release}-champion")
        serving = ServingState("127.0.0.1", port, control, feedback, champion=champion)
        where.write_serving(serving)
        self._controller = Controller(project, where, serving, command=self._command, alone=True)
        self._order = {
            "verb": "start",
            "challenger": asdict(replace(release, release=f"{release.release}-{case.value}")),
            "plan": dict(PLAN),
        }
        self._users: subprocess.Popen[str] | None = None

    def _command(self, release: str, bento: Path, port: int) -> list[str]:
        kind = release.rpartition("-")[2]
        if kind in fault_injection.Fault.__members__.values():
            return fault_injection.command(fault_injection.Fault(kind), bento, port)
        return bento_store.serve_folder_command(bento, port=port)

    def play(self, say: Callable[[str], None]) -> RehearsalResult:
        """Run the rollout to its end."""
        self._controller.start()
        self._users = subprocess.Popen(
            load_generator.command(
                self._controller.serving.port, PER_S, self._place.folder / "requests"
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        self._controller.obey(self._order)
        began, last, struck = time.monotonic(), "", False
        while time.monotonic() - began < CASE_MAX_S:
            self._controller.tick()
            status = self._controller.status()
            if (line := f"{status['state']} {status['weight_percent']:g} %") != last:
                say(f"{self._case.value:<8} {line:<14} {status['reason']}")
                last = line
            if status["state"] == Phase.STEP and not struck:
                struck = self._strike(f"{self._release}-{self._case.value}")
            if is_over(status["state"]) or status["state"] == Phase.PAUSED:
                break
            time.sleep(TICK_S)
        return self._outcome(status, time.monotonic() - began)

    def _strike(self, challenger: str) -> bool:
        """Do to the challenger what its case says happens at the first step."""
        if self._case is RehearsalCase.DEAD:
            self._controller.kill(challenger)
        elif self._case is RehearsalCase.FAILING:
            (self._place.arms / challenger / fault_injection.BREAK).touch()
        return True

    def _outcome(self, status: RolloutStatus, seconds: float) -> RehearsalResult:
        assert self._users is not None
        self._users.send_signal(signal.SIGTERM)
        counts = json.loads(self._users.communicate(timeout=END_S)[0])
        failing = [gate for gate in status["gates"] if gate["verdict"] == "FAIL"]
        return RehearsalResult(
            case=self._case,
            state=str(status["state"]),
            gate=", ".join(str(gate["name"]) for gate in failing) or "-",
            reason=str(failing[0]["reason"] if failing else status["reason"]),
            seconds=round(seconds, 1),
            sent=counts["sent"],
            failed=counts["failed"],
            challenger_requests=self._controller.challenger_requests(),
            p99_ms=counts["p99_ms"],
        )

    def close(self) -> None:
        """End all that was started."""
        if self._users is not None and self._users.poll() is None:
            self._users.kill()
            self._users.wait()
        if self._users is not None and self._users.stdout is not None:
            self._users.stdout.close()
        self._controller.close()
        nginx_process.terminate(self._place.router, timeout_s=2)
        served = model_servers.ModelServers(self._place.arms, {}, key=None)
        for server in served.running():
            served.kill(server.release)
