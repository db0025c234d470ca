"""Deployment worker: takes the runs of a work pool, and watches those of all its workers.

Prefect's own process worker, as a child that dies with this process, starts the runs. This process
starts it again when it dies, looks after the leases (flows/run_lease.py), and tells of runs that
ended badly: a command gets a JSON object on its standard input, a webhook as its body.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType

from fettle.process_lifetime import die_with_parent
from flows.run_lease import LOST, LeaseWatch, sweep

LOOK_S = 1.0
AGAIN_S = 3.0  # a child that died at once is not started in a circle
STOP_S = 20.0
NOTICE_S = 30.0
BAD = (StateType.FAILED, StateType.CRASHED)
# The child asks for work this often; both are Prefect's own settings.
POLLING = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_WORKER_HEARTBEAT_SECONDS": "10"}


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What `fettle worker` was told; see its options. `name` is unique among all workers."""

    name: str
    pool: str
    queues: tuple[str, ...] = ()
    limit: int = 1
    on_failure: str | None = None
    webhook: str | None = None


class DeploymentWorker:
    """A worker at work; `say` prints a line."""

    def __init__(
        self, settings: WorkerSettings, environ: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        self._settings, self._say = settings, say
        self._environ = {**POLLING, **environ, "FETTLE_WORKER": settings.name}
        self._watch = LeaseWatch(settings.pool)
        self._mine: set[UUID] = set()
        self._child: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._stopping = False

    def work(self) -> None:
        """Work until SIGTERM or Ctrl-C; the run at hand is cancelled then."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            while not self._stopping:
                self._keep_up()
                with suppress(*LOST), get_client(sync_client=True) as client:
                    sweep(client)
                    while not self._stopping:
                        self._keep_up()
                        self.look(client)
                        time.sleep(LOOK_S)
                time.sleep(LOOK_S)
        finally:
            self._end()

    def look(self, client: SyncPrefectClient) -> None:
        """End the runs whose lease ended, and tell of those that ended badly."""
        for run in self._watch.look(client):
            self._say(f"run '{run.name}' showed no sign of life and is marked as crashed")
            self._mine.add(run.id)
        held = self._watch.workers
        self._mine |= {run for run, worker in held.items() if worker == self._settings.name}
        for one in self._mine - held.keys():
            run = client.read_flow_run(one)
            if run.state and run.state.is_final():
                self._mine.discard(one)
                if run.state.type in BAD:
                    self._tell(run)

    def _keep_up(self) -> None:
        """Start the child unless it runs."""
        if self._child is not None and self._child.poll() is None:
            return
        if time.monotonic() - self._started_s < AGAIN_S:
            return
        if self._child is not None:
            self._say(f"the process worker ended ({self._child.returncode}) and is started again")
        settings, self._started_s = self._settings, time.monotonic()
        queues = [word for queue in settings.queues for word in ("--work-queue", queue)]
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "prefect", "worker", "start", "--type", "process"),
                *("--pool", settings.pool, "--name", settings.name, "--limit", str(settings.limit)),
                *("--install-policy", "never", *queues),
            ],
            stdin=subprocess.DEVNULL,
            env=self._environ,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _end(self) -> None:
        """End the child and what it started."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def _tell(self, run: FlowRun) -> None:
        """Tell the command and the webhook of a run that ended badly; neither can stop the work."""
        state = run.state
        doc = {
            "run": str(run.id),
            "name": run.name,
            "state": state.name if state else "",
            "message": state.message if state else "",
            "pool": self._settings.pool,
            "worker": self._settings.name,
        }
        self._say(f"run '{run.name}' ended as {doc['state']}: {doc['message']}")
        body = json.dumps(doc).encode()
        if self._settings.on_failure:
            try:
                words = shlex.split(self._settings.on_failure)
                subprocess.run(words, input=body, timeout=NOTICE_S, check=True)
            except (OSError, ValueError, subprocess.SubprocessError) as err:
                self._say(f"--on-failure did not work: {type(err).__name__}: {err}")
        if self._settings.webhook:
            head = {"Content-Type": "application/json"}
            try:
                request = urllib.request.Request(self._settings.webhook, body, head)
                urllib.request.urlopen(request, timeout=NOTICE_S).close()
            except (OSError, ValueError) as err:  # the address is secret, and may stand in it
                self._say(f"the webhook did not take it: {type(err).__name__}")
