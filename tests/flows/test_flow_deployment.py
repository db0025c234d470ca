"""A deployment of a real Prefect server: registered, run by a worker, its worker killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import team_servers
from box import Box, set_params
from test_flow_push import SETTINGS

pytestmark = [pytest.mark.flows, pytest.mark.slow]
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Deployed:
    """A project whose Prefect server is a team's, and the API of that server."""

    def __init__(self, root: Path, api: str) -> None:
        self.root, self.api, self.box = root, api, Box(root, root / "fruit")
        assert self.box.fettle("init", "fruit", cwd=root).returncode == 0
        set_params(self.box.project / "params.yaml", {**SETTINGS, "finetune.epochs_max": "1"})
        (self.box.project / "inputs").mkdir(exist_ok=True)
        local = self.box.project / "inputs" / "local.yaml"
        local.write_text(f"prefect_api_url: {api}\n")

    def ask(self, path: str, doc: dict[str, Any] | None = None) -> Any:  # Any: JSON
        body = None if doc is None else json.dumps(doc).encode()
        request = urllib.request.Request(
            f"{self.api}{path}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def deploy(self, *options: str) -> Any:  # Any: JSON
        done = self.box.fettle("deploy", *options)
        assert done.returncode == 0, done.stderr
        return self.ask("/deployments/name/release/fruit")

    def begin(self, **parameters: object) -> str:
        """Start a run, as a click on the server's page does."""
        made = self.ask("/deployments/name/release/fruit")["id"]
        doc = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"/deployments/{made}/create_flow_run", doc)["id"])

    def state(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"/flow_runs/{run}")["state"]
        return found

    def lease(self, run: str) -> dict[str, Any] | None:
        name = f"fettle_lease_{run.replace('-', '')}"
        found = [one for one in self.ask("/variables/filter", {}) if one["name"] == name]
        return found[0]["value"] if found else None

    def wait(self, look: Callable[[], Any], seconds: float = 300) -> Any:  # Any: what is looked for
        deadline = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.3)
        return found

    def wait_for_end(self, run: str, seconds: float = 300) -> dict[str, Any]:
        self.wait(lambda: self.state(run)["type"] in FINAL, seconds)
        return self.state(run)

    def logs(self) -> str:
        return "".join(path.read_text()[-3000:] for path in self.root.glob("worker-*.log"))

    @contextmanager
    def worker(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker at work; its failures go to failed.json."""
        told = f"tee -a {self.root / 'failed.json'}"
        with (self.root / f"worker-{name}.log").open("w") as log:
            process = subprocess.Popen(
                self.box.command("worker", "--on-failure", told),
                cwd=self.box.project,
                env=self.box.environment(),
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    root = tmp_path_factory.mktemp("deployed")
    with team_servers.prefect(root / "team") as prefect:
        yield Deployed(root, prefect.url)


def test_a_deployment_has_its_schedule_pool_queue_tags_and_form(deployed: Deployed) -> None:
    made = deployed.deploy(
        *("--cron", "30 3 * * *", "--timezone", "Europe/Berlin", "--tag", "nightly"),
        *("--queue", "urgent", "--priority", "1", "--limit", "2"),
    )
    (schedule,) = made["schedules"]
    assert schedule["schedule"]["cron"] == "30 3 * * *"
    assert schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert made["tags"] == ["fettle", "nightly"]
    assert (made["work_pool_name"], made["work_queue_name"]) == ("fruit", "urgent")
    assert made["global_concurrency_limit"]["limit"] == 2
    assert list(made["parameter_openapi_schema"]["properties"]) == ["overrides", "force"]
    assert deployed.ask("/work_pools/fruit")["type"] == "process"
    assert deployed.ask("/work_pools/fruit/queues/urgent")["priority"] == 1
    again = deployed.deploy()
    assert (again["id"], again["schedules"]) == (made["id"], [])
    assert (again["tags"], again["work_queue_name"]) == (["fettle"], "default")


def test_what_cannot_be_registered_is_refused_in_words(deployed: Deployed) -> None:
    for options in (("--cron", "every night"), ("--cron", "1 2 * * *", "--timezone", "Moon")):
        done = deployed.box.fettle("deploy", *options)
        assert done.returncode == 2
        assert done.stderr.startswith(
            f"fettle: --cron or --timezone cannot be read: got '{options[1]}'"
        )
        assert done.stderr.endswith("Fix: for every night at 3:30 say --cron '30 3 * * *'.\n")
    deployed.ask("/work_pools/", {"name": "pods", "type": "kubernetes"})
    done = deployed.box.fettle("deploy", "--pool", "pods")
    assert (done.returncode, done.stderr) == (
        2,
        "fettle: the work pool 'pods' is of another kind: got kubernetes; a run needs the "
        "project's folder, so a worker starts it as a process there. Fix: name another with "
        "--pool; it is made.\n",
    )


def test_a_worker_runs_it_and_a_killed_one_costs_its_run_alone(deployed: Deployed) -> None:
    deployed.deploy()
    with deployed.worker("one") as one, deployed.worker("two") as two:
        first = deployed.begin(overrides=["verdict.limits=[{metric: accuracy, min: 1.0}]"])
        ended = deployed.wait_for_end(first)
        assert (ended["type"], ended["name"]) == ("FAILED", "GateNotPassed"), deployed.logs()
        tasks = deployed.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [first]}}})
        assert {"finetune", "package"} <= {task["name"] for task in tasks}
        told = {"event": {"name": ["fettle.gate.failed"]}}
        found = deployed.wait(
            lambda: deployed.ask("/events/filter", {"filter": told})["events"], 30
        )
        assert found[0]["payload"]["name"] == "fruit"

        second = deployed.begin(force=True)
        third = deployed.begin()
        deployed.wait(lambda: deployed.state(second)["type"] == "RUNNING")
        owner = deployed.lease(second)
        assert owner is not None
        victim = one if owner["worker"].endswith(f"-{one.pid}") else two
        time.sleep(3)
        killed_s = time.monotonic()
        victim.kill()
        ended = deployed.wait_for_end(second, 40)
        took_s = time.monotonic() - killed_s
        assert ended["type"] == "CRASHED"
        assert ended["message"] == "its process is lost: no sign of life for 10 s"
        assert took_s < 20, took_s  # 10 s of silence, and a look each second
        assert deployed.lease(second) is None
        assert deployed.wait_for_end(third)["type"] == "COMPLETED", deployed.logs()
        deployed.wait(lambda: deployed.lease(third) is None, 30)
    docs = [json.loads(line + "}") for line in notices(deployed).split("}") if line.strip()]
    assert [(doc["run"], doc["state"]) for doc in docs] == [
        (first, "GateNotPassed"),
        (second, "Crashed"),
    ]


def notices(deployed: Deployed) -> str:
    return (deployed.root / "failed.json").read_text()


LEASE = """
import json, sys, time
from uuid import UUID
from prefect.client.orchestration import get_client
from prefect.states import Running
from flows import run_lease
from flows.run_lease import LeaseWatch, RunLease

run_lease.BEAT_S = 0.2
run, now, lost = UUID(sys.argv[1]), [0.0], []
watch = LeaseWatch("fruit", clock=lambda: now[0])
lease = RunLease(run, "w", lambda: lost.append("lost"))
lease.begin()
with get_client(sync_client=True) as client:
    client.set_flow_run_state(run, Running(), force=True)
    looks = [watch.look(client)]
    now[0] = 9.0
    time.sleep(1)
    looks.append(watch.look(client))           # it beats: its time begins anew
    now[0] = 18.5
    time.sleep(1)
    looks.append(watch.look(client))
    lease.confirm()
    early = list(lost)
    run_lease.BEAT_S = 60
    lease._over.set()                           # frozen: it beats no more
    time.sleep(1)
    looks.append(watch.look(client))
    now[0] = 28.6
    frozen = watch.look(client)                 # 10.1 s after the last change
    state = client.read_flow_run(run).state
    lease.confirm()                             # it wakes, and asks before it publishes
    thawed = list(lost)
print(json.dumps([[len(x) for x in looks], early, len(frozen), state.name, thawed]))
"""


def test_a_run_that_was_frozen_is_fenced_off_and_one_that_beats_is_not(deployed: Deployed) -> None:
    deployed.deploy()
    run = deployed.begin()
    environ = {**deployed.box.environment(), "PREFECT_API_URL": deployed.api}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LEASE, run],
        cwd=deployed.root,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    looks, early, frozen, state, thawed = json.loads(done.stdout)
    assert (looks, early) == ([0, 0, 0, 0], [])
    assert (frozen, state, thawed) == (1, "Crashed", ["lost"])
