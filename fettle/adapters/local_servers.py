"""Local servers (Prefect's, MLflow's UI): started, found and stopped by pid, on loopback.

A server stays up between runs: Prefect's costs 5 to 15 s to start, and an ephemeral one would
cost that in every process. Where a project uses a team's server (fettle/server_addresses.py), that
one is found instead, and none of the kind is ever started or stopped.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from fettle import manifest, server_addresses
from fettle.adapters import shared_servers
from fettle.errors import TransientError
from fettle.project import Project, environment
from fettle.server_addresses import ServerAddress

Kind = Literal["prefect", "mlflow"]
FIRST_PORT = {"prefect": 4200, "mlflow": 5000}
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}
VARIABLES: Mapping[Kind, server_addresses.Variable] = {
    "prefect": "PREFECT_API_URL",
    "mlflow": "MLFLOW_TRACKING_URI",
}


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers: its process and its address (no trailing slash).

    A team's server has no process here: its pid is 0, its `url` is that of the API.
    """

    kind: str
    pid: int
    url: str

    @property
    def own(self) -> bool:
        """Whether it is the project's own, on this machine."""
        return self.pid > 0

    @property
    def api(self) -> str:
        """The address of Prefect's API."""
        return f"{self.url}/api" if self.own else self.url

    @property
    def page(self) -> str:
        """The address that a person opens, without what is secret in it."""
        return server_addresses.masked(self.url).removesuffix("/api")


def running(project: Project, kind: Kind) -> Server | None:
    """Return the server of the pid file, or the team's, if it still answers."""
    if (address := shared(project, kind)) is not None:
        answers = shared_servers.answers(address, os.environ)
        return Server(kind, 0, address.url.rstrip("/")) if answers else None
    server = _recorded(project, kind)
    if server is None:
        return None
    return server if _alive(server.pid) and _answers(server.url + HEALTH[kind]) else None


def shared(project: Project, kind: Kind) -> ServerAddress | None:
    """Return the team's server of this kind, None where the project has its own.

    Raises ProjectError for an address that is none.
    """
    return server_addresses.resolve(project.root, os.environ, VARIABLES[kind])


def launch(project: Project, kind: Kind) -> Server:
    """Start a server in the background without waiting for it; `wait` does that.

    Raises what keeps a team's server from taking a run: there is nothing to start then.
    """
    if (address := shared(project, kind)) is not None:
        raise shared_servers.fault(address, os.environ) or TransientError(
            f"the {kind} server was silent for a moment", got=address.shown, fix="run again"
        )
    port = _free_port(FIRST_PORT[kind])
    url = f"http://127.0.0.1:{port}"
    log = project.state / f"{kind}-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as handle:
        child = subprocess.Popen(
            _command(project, kind, port),
            stdout=handle,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=project.root,
            env={
                **os.environ,
                **environment(project),
                "PREFECT_API_URL": f"{url}/api",
                "PREFECT_UI_API_URL": f"{url}/api",
                "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
        )
    server = Server(kind, child.pid, url)
    manifest.write_json(_pid_file(project, kind), asdict(server))
    return server


def wait(project: Project, server: Server, timeout_s: float = 90) -> Server:
    """Wait until a launched server answers; a team's has answered before.

    Raises TransientError with the end of its log when it dies or stays silent.
    """
    if not server.own:
        return server
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and _alive(server.pid):
        if _answers(server.url + HEALTH[server.kind]):
            return server
        time.sleep(0.2)
    _end(server.pid, timeout_s=10)  # or each try would leave one more
    log = project.state / f"{server.kind}-server.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
    raise TransientError(
        f"the {server.kind} server did not start within {timeout_s:.0f} s",
        got=tail or "an empty log",
        rule=f"it must answer at {server.url}",
        fix=f"read {log}, then run again",
    )


def ensure(project: Project, kind: Kind) -> Server:
    """Return the running server, or start one and wait for it."""
    return running(project, kind) or wait(project, launch(project, kind))


def stop(project: Project, kind: Kind, timeout_s: float = 10) -> bool:
    """Stop the server of the pid file with its children; False when none was running."""
    server = _recorded(project, kind)
    _pid_file(project, kind).unlink(missing_ok=True)
    return server is not None and _end(server.pid, timeout_s=timeout_s)


def _end(pid: int, *, timeout_s: float) -> bool:
    """End a server with its children; False when it was dead already."""
    if not _alive(pid):
        return False
    deadline = time.monotonic() + timeout_s
    with suppress(ProcessLookupError):  # it may end by itself meanwhile
        os.killpg(pid, signal.SIGTERM)
        while _alive(pid) and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(0.1)
        if _alive(pid):
            os.killpg(pid, signal.SIGKILL)
    _reap(pid)
    return True


def _command(project: Project, kind: Kind, port: int) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(port)]
    if kind == "prefect":
        return [sys.executable, "-m", "prefect", "server", "start", *address]
    store = ["--backend-store-uri", project.own_database]
    return [sys.executable, "-m", "mlflow", "server", *address, *store, "--workers", "1"]


def _pid_file(project: Project, kind: Kind) -> Path:
    return project.state / f"{kind}-server.json"


def _recorded(project: Project, kind: Kind) -> Server | None:
    """Read the pid file; None when there is none or it is no longer whole."""
    try:
        return Server(**json.loads(_pid_file(project, kind).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _alive(pid: int) -> bool:
    _reap(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reap(pid: int) -> None:
    """Collect an exit status if the server is our own child, so that it is not kept a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _answers(url: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy
    try:
        with direct.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):  # urllib's own errors are OSErrors
        return False


def _free_port(first: int) -> int:
    """Return `first` if it is free on loopback, else a port the system picks."""
    for port in (first, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TransientError("no free port on loopback")
