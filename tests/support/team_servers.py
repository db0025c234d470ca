"""A team's servers, real ones on loopback: Prefect and MLflow, each with a home of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from served import free_port

from fettle.project import QUIET

START_S, STOP_S = 90, 20


@dataclass(frozen=True)
class TeamServer:
    """A server that others' runs are told to; `log` is what it prints."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it and all it started, as a machine that loses power does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_S)


@contextmanager
def prefect(folder: Path, **added: str) -> Iterator[TeamServer]:
    """Prefect's server; its `url` is that of the API."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": url}
    command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _started(folder / "prefect-server.log", command, own | added, f"{url}/health") as process:
        yield TeamServer(url, folder / "prefect-server.log", process)


@contextmanager
def mlflow(folder: Path, **added: str) -> Iterator[TeamServer]:
    """MLflow's server on a SQLite file; it keeps the runs' files itself."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    store = f"sqlite:///{folder / 'team-mlflow.db'}"
    where = ["--backend-store-uri", store, "--artifacts-destination", str(folder / "team-files")]
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "mlflow-server.log"
    with _started(log, [*command, *where], own | added, f"{url}/health") as process:
        yield TeamServer(url, log, process)


@contextmanager
def _started(
    log: Path, command: list[str], added: Mapping[str, str], health: str
) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=log.parent,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **QUIET, **added},
        )
    try:
        deadline = time.monotonic() + START_S
        while not _answers(health):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_S)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
