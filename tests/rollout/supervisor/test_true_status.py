"""`fettle canary status` says what users meet, also while nobody judges or nothing serves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rehearsed import RolloutHarness, Users, wait_for
from tiny_project import ROOT
from typer.testing import CliRunner

from fettle.cli import canary, canary_orders
from fettle.rollout.router import nginx_process, router_lease
from fettle.rollout.supervisor import supervisor_launch

UNDECIDED: dict[str, object] = {"shadow_gates": [], "alpha_promote": 1e-15}


@pytest.fixture
def held(harness: RolloutHarness) -> RolloutHarness:
    """A rollout that gathers evidence at 50 %."""
    controller = harness.start(harness.release(1))
    with Users(harness.serving.port):
        controller.obey(harness.order(harness.release(2), **UNDECIDED))
        harness.tick_until("step")
    controller.tick()
    return harness


def test_a_judged_rollout_has_the_weight_that_was_decided(held: RolloutHarness) -> None:
    doc = canary_orders.status(held.project)
    assert (doc["state"], doc["weight_percent"], doc["serves"]) == ("step", 50.0, True)
    assert "decided_percent" not in doc


@pytest.mark.parametrize("end", ["switch", "lease", "watchdog", "router"])
def test_whatever_keeps_the_challenger_from_its_users_is_seen(
    held: RolloutHarness, end: str
) -> None:
    folder = held.place.router
    match end:
        case "switch":
            nginx_process.engage_kill_switch(folder)
        case "lease":
            router_lease.renew(folder, lease_s=1, now_s=0)
        case "watchdog":
            (folder / "watched").unlink()
        case _:
            nginx_process.terminate(folder, timeout_s=1)
    doc = canary_orders.status(held.project)
    assert (doc["state"], doc["weight_percent"], doc["decided_percent"]) == ("step", 0.0, 50.0)
    assert doc["serves"] == (end != "router")


@pytest.mark.flows
def test_after_a_stop_the_status_is_true_and_the_next_commands_work(
    held: RolloutHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = held.project.root
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    assert held.controller is not None
    held.controller.close()
    monkeypatch.chdir(root)
    done = CliRunner().invoke(canary.app, ["stop"])
    rollout = held.place.active()
    assert done.stdout.splitlines() == [
        "stopped",
        f"the rollout {rollout} waits with its evidence: `fettle serve` and any order go on with "
        "it, `fettle canary abort` ends it",
    ]
    said = CliRunner().invoke(canary.app, ["status"]).stdout
    assert "nobody judges now: the challenger gets none of its 50 %" in said
    assert "nothing serves: fettle serve goes on with this rollout and its evidence" in said
    # the releases of this test are no Bentos: what a supervisor would start is started before it
    harness_again = held.start(None)
    harness_again.close()
    command = [sys.executable, "-P", "-m", "fettle.rollout.supervisor.watchdog", str(root)]
    child = subprocess.Popen(command)
    try:
        wait_for(lambda: supervisor_launch.running(held.place), timeout_s=60)
        aborted = CliRunner().invoke(canary.app, ["abort"])
        assert aborted.stdout == "aborted: aborted by order\n"
        assert CliRunner().invoke(canary.app, ["stop"]).stdout == "stopped\n"
        assert _first_line(root) == "nothing serves: fettle serve goes on"
    finally:
        child.kill()
        child.wait()


def _first_line(root: Path) -> str:
    said = CliRunner().invoke(canary.app, ["status"]).stdout
    return "nothing serves: fettle serve goes on" if "nothing serves: fettle" in said else said
