"""Model servers: releases as `bentoml serve` processes on loopback, a folder and a home each.

    state/arms/<release>/server.json    pid, port, command: how a killed controller finds it again
    state/arms/<release>/server.log     its output
    state/arms/<release>/home           its BENTOML_HOME: a second server in it would delete the
                                        metrics of the first (seen with BentoML 1.4.39)

A server outlives the process that started it, since what serves must not hang on what decides; it
keeps its port over a restart, so that open connections of the router find it again.
"""

from __future__ import annotations

import http.client
import io
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from PIL import Image

from fettle import manifest
from fettle.adapters import bento_store, process_identity
from fettle.errors import TransientError
from fettle.json_values import read_object

READY_S = 60.0  # 2.5 s on an idle core, 8 s with a cold disk
PROBE_S = 10.0
DRAIN_S = float(bento_store.DRAIN_S)  # the service's own: what it began it may end
KILL_S = 5.0
PROBE_PX = 8
LOOK_AGAIN_S = 5.0  # a look through all processes takes 20 ms
PORT = "FETTLE_SERVED_PORT"  # told to a server, so that it is found without its file
FIRST_PORT, LAST_PORT = 3100, 3999


Command = Callable[[str, Path, int], list[str]]  # of a release, its Bento's folder, and a port


def serve(_release: str, bento: Path, port: int) -> list[str]:
    """Return the command that serves a release from its Bento's folder."""
    return bento_store.serve_folder_command(bento, port=port)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that was started: `born` tells it from a stranger that got its number."""

    release: str
    pid: int
    born: float
    port: int
    command: list[str]

    @property
    def address(self) -> str:
        """Its address as the router's log writes it."""
        return f"{bento_store.LOOPBACK}:{self.port}"


class ModelServers:
    """The servers below `folder`; `environ` is what they inherit (the API key among it).

    `command` says how a release is served: a rehearsal breaks some on purpose.
    """

    def __init__(
        self,
        folder: Path,
        environ: Mapping[str, str],
        *,
        key: str | None,
        command: Command = serve,
    ) -> None:
        self.folder = folder
        self._command = command
        self._environ = dict(environ)
        self._key = key
        self._look_again: dict[str, float] = {}

    def find(self, release: str) -> RunningServer | None:
        """Return the server of this release (12 hex digits) if it lives."""
        known = self.known(release)
        return known if known is not None and alive(known) else None

    def known(self, release: str) -> RunningServer | None:
        """Return the server of this release as it was started last, dead or alive."""
        own = self.folder / release
        match read_object(own / "server.json"):
            case {
                "release": str(name),
                "pid": int(pid),
                "born": float(born) | int(born),
                "port": int(port),
                "command": [*words],
                **further,
            } if name == release and pid > 0 and 0 < port < 2**16 and not further:
                return RunningServer(release, pid, born, port, [str(word) for word in words])
        return self._lost(release) if own.is_dir() else None

    def _lost(self, release: str) -> RunningServer | None:
        """Find a server whose file is damaged or gone, by its working folder: it holds its port."""
        if time.monotonic() < self._look_again.get(release, 0.0):
            return None
        self._look_again[release] = time.monotonic() + LOOK_AGAIN_S
        own = (self.folder / release).resolve()
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError, ValueError):
                port = process.environ().get(PORT)
                if port is None or Path(process.cwd()) != own or not _is_head(process, own):
                    continue
                born = process_identity.birth(process.pid)
                found = RunningServer(release, process.pid, born, int(port), process.cmdline())
                manifest.write_json(own / "server.json", asdict(found))
                return found
        return None

    def running(self) -> list[RunningServer]:
        """List the servers that live."""
        found = [self.find(path.parent.name) for path in self.folder.glob("*/server.json")]
        return [one for one in found if one is not None]

    def start(self, release: str, bento: Path) -> RunningServer:
        """Start a release from its Bento's folder unless it runs; returns before it is ready."""
        self._look_again.pop(release, None)
        running = self.find(release)
        if running is not None:
            return running
        known = self.known(release)
        port = known.port if known is not None and free(known.port) else free_port()
        return self.launch(release, self._command(release, bento, port), port)

    def launch(self, release: str, command: Sequence[str], port: int) -> RunningServer:
        """Start any command as the server of a release: it must listen on `port` of loopback."""
        own = self.folder / release
        (own / "home").mkdir(parents=True, exist_ok=True)
        child = process_identity.spawn(
            list(command),
            own / "server.log",
            cwd=own,
            env=bento_store.serve_environment(self._environ, own / "home") | {PORT: str(port)},
        )
        made = RunningServer(release, child.pid, child.born, port, list(command))
        try:
            manifest.write_json(own / "server.json", asdict(made))
        except OSError:  # on a full disk each try would leave a server that nobody finds again
            child.end(timeout_s=KILL_S)
            raise
        return made

    def ready(self, release: str) -> bool:
        """Say whether a real inference is answered: a worker has the model, not just a socket."""
        server = self.find(release)
        return server is not None and answers(server.port, self._key)

    def last_words(self, release: str) -> str:
        """Return the last line of its log."""
        log = self.folder / release / "server.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        return lines[-1] if lines else "an empty log"

    def stop(self, release: str, *, drain_s: float = DRAIN_S, wait: bool = True) -> None:
        """Send SIGTERM, which lets it answer what it began; kill what is left after `drain_s`."""
        server = self.known(release)
        if server is None or not alive(server):
            return
        family = _family(server)
        os.kill(server.pid, signal.SIGTERM)
        if not wait:
            return
        left = process_identity.wait_ended(family, timeout_s=drain_s)
        for one in left:
            with suppress(psutil.Error):
                one.kill()
        process_identity.wait_ended(left, timeout_s=KILL_S)

    def kill(self, release: str) -> None:
        """Kill it at once, workers and all."""
        server = self.known(release)
        if server is not None and alive(server):
            for one in _family(server):
                with suppress(psutil.Error):
                    one.kill()


def alive(server: RunningServer) -> bool:
    """Say whether this very process still runs (no zombie, no namesake)."""
    return process_identity.ProcessIdentity(server.pid, server.born).alive()


def answers(port: int, key: str | None, *, timeout_s: float = PROBE_S) -> bool:
    """Say whether `POST /predict` on this port of loopback gives 200 for a small grey image."""
    link = http.client.HTTPConnection(bento_store.LOOPBACK, port, timeout=timeout_s)
    headers = {"Content-Type": "image/png"} | ({"X-API-Key": key} if key else {})
    try:
        link.request("POST", "/predict", _probe(), headers)
        answer = link.getresponse()
        answer.read()
        return answer.status == 200
    except OSError:
        return False
    except http.client.HTTPException:
        return False
    finally:
        link.close()


def free_port() -> int:
    """Return a port of loopback that nothing listens on; see `free_ports`."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nothing listens on; drawn, so that two seldom take the same.

    Raises TransientError when FIRST_PORT to LAST_PORT has too few.
    """
    ports = list(range(FIRST_PORT, LAST_PORT + 1))
    random.SystemRandom().shuffle(ports)
    found = []
    for port in ports:
        if free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise TransientError(
        "too few ports are free to serve on",
        got=f"{len(found)} of {FIRST_PORT} to {LAST_PORT}",
        fix="stop what holds them",
    )


def free(port: int) -> bool:
    """Say whether nothing listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server's own socket
        try:
            probe.bind((bento_store.LOOPBACK, port))
        except OSError:
            return False
    return True


def _is_head(process: psutil.Process, own: Path) -> bool:
    above = process.parent()
    return above is None or Path(above.cwd()) != own


def _family(server: RunningServer) -> list[psutil.Process]:
    try:
        head = psutil.Process(server.pid)
        return [head, *head.children(recursive=True)]
    except psutil.Error:
        return []


def _probe() -> bytes:
    out = io.BytesIO()
    Image.new("L", (PROBE_PX, PROBE_PX), 128).save(out, "PNG")
    return out.getvalue()
