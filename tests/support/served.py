"""Start a real server in a process of its own, watched, and talk to it over loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fettle.project import QUIET

READY_S, STOP_S = 60, 15  # far above the 4 s and 1 s it takes on an idle core

# Python runs this at start of every process of the server: it notes what that process reaches for
WATCH = """
import os, sys

def note(kind, what):
    with open(os.environ["WATCH_FILE"], "a") as file:
        file.write(f"{kind} {what}\\n")

def hook(event, args):
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        note("reach", args[1][0])
    elif event == "socket.getaddrinfo":
        note("reach", args[0])
    elif event == "import" and args[0].partition(".")[0] in ("torch", "sklearn", "prefect"):
        note("import", args[0])
    elif event == "exec":
        path = getattr(args[0], "co_filename", "")
        # the environment of a checkout named fettle lies below a folder of that name
        if f"{os.sep}fettle{os.sep}" in os.sep + path.rpartition("site-packages" + os.sep)[2]:
            note("run", path)

note("start", os.getpid())
sys.addaudithook(hook)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, **added: str) -> dict[str, str]:
    """An empty home below `folder`, quiet tools and the watch; no key, nothing of the project."""
    watch = folder / "watch"
    watch.mkdir(parents=True, exist_ok=True)
    (watch / "sitecustomize.py").write_text(WATCH)
    return {
        **QUIET,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(watch),
        "WATCH_FILE": str(folder / "watch" / "seen"),
        **added,
    }


def seen(folder: Path, kind: str) -> list[str]:
    """What every process started with `environment(folder)` did of one kind."""
    lines = (folder / "watch" / "seen").read_text().splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{kind} ")]


class Server:
    """A running server at 127.0.0.1:`port`; `log` is where its output goes."""

    def __init__(self, command: list[str], *, port: int, cwd: Path, env: dict[str, str]) -> None:
        self.port = port
        self.log = cwd / f"server-{port}.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=env, stdout=out, stderr=out, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if self.get("/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            link.request(method, path, body, given)
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            link.close()

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.send("GET", path, **headers)

    def post(self, body: bytes, kind: str, **headers: str) -> tuple[int, Any]:
        """Post to /predict; return the status and the JSON answer."""
        status, _, answer = self.send("POST", "/predict", body, content_type=kind, **headers)
        return status, json.loads(answer)

    def interrupt(self) -> int:
        """Do what Ctrl-C in a terminal does: every process of the group gets SIGINT."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(STOP_S)


@contextmanager
def serving(command: list[str], *, port: int, cwd: Path, env: dict[str, str]) -> Iterator[Server]:
    """Run a server until the block ends, whatever happens in it."""
    server = Server(command, port=port, cwd=cwd, env=env)
    try:
        server.wait()
        yield server
        server.interrupt()
    finally:
        if server.process.poll() is None:
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
