"""A real nginx on loopback with two tiny servers behind it, for the router's tests."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from pathlib import Path

import arm_server
from served import free_port

from fettle.rollout.router import access_log, nginx_process
from fettle.rollout.router.nginx_config import Routes


class Bench:
    """nginx, a champion "A" and a challenger "B"; `ask` keeps one connection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.champion, self.challenger = free_port(), free_port()
        self.arms = {
            "A": self.start("A", self.champion),
            "B": self.start("B", self.challenger),
        }
        self.port = free_port()
        place = nginx_process.place(folder, host="127.0.0.1", port=self.port, control=free_port())
        self.router = nginx_process.Nginx(place)
        self.link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def start(self, name: str, port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, arm_server.__file__, str(port), name, str(self.fail(name))]
        child = subprocess.Popen(command)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            link = http.client.HTTPConnection("127.0.0.1", port)
            try:
                link.request("GET", "/")
                link.getresponse().read()
                return child
            except OSError:
                time.sleep(0.02)
            finally:
                link.close()
        raise AssertionError("the arm did not start")

    def fail(self, name: str) -> Path:
        return self.folder / f"fail-{name}"

    def routes(self, **changed: object) -> Routes:
        return Routes(self.champion, self.challenger, **changed)  # type: ignore[arg-type]

    def ask(self, body: bytes = b"x", **headers: str) -> tuple[int, bytes, str]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.link.request("POST", "/predict", body, given)
        answer = self.link.getresponse()
        return answer.status, answer.read(), answer.headers["X-Request-Id"]

    def logged(self, n: int) -> list[access_log.LoggedRequest]:
        """The first `n` lines; nginx writes one after the answer has left."""
        names: dict[str, access_log.Arm] = {
            f"127.0.0.1:{self.champion}": "champion",
            f"127.0.0.1:{self.challenger}": "challenger",
        }
        lines: list[access_log.LoggedRequest] = []
        position, deadline = 0, time.monotonic() + 10
        while len(lines) < n and time.monotonic() < deadline:
            more, position = access_log.read(self.router.place.log, position, names)
            lines += more
        return lines

    def close(self) -> None:
        self.link.close()
        self.router.stop()
        for arm in self.arms.values():
            arm.kill()
            arm.wait()
