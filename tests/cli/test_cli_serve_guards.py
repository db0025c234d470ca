"""A release served directly has the router's guards, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket

import psutil
import pytest
import served
from test_cli_serve import Released

from fettle.rollout.router import nginx_process

pytestmark = pytest.mark.flows


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return Released(tmp_path_factory.mktemp("released"))


def test_a_release_served_directly_takes_no_body_without_a_key_and_ends_whole(
    released: Released,
) -> None:
    port = served.free_port()
    command = released.command(released.tag, "--port", str(port))
    with served.serving(command, port=port, cwd=released.folder, env=released.env) as server:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
            head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
            link.sendall(head.encode())
            assert link.recv(12) == b"HTTP/1.1 401"
        key = (released.config / "fettle" / "api_key").read_text().strip()
        image = (b"[[0, 255], [0, 255]]", "application/json")
        assert server.post(*image, x_api_key=key)[0] == 200
        assert server.get("/metrics")[0] == 401
        assert server.get("/metrics", x_api_key=key)[0] == 200
        family = psutil.Process(server.process.pid).children(recursive=True)
        router = released.folder / ".fettle" / "serve" / f"127.0.0.1-{port}" / "router"
        master = nginx_process.running(router)
        assert master is not None
        os.kill(server.process.pid, signal.SIGTERM)
        assert server.process.wait(served.STOP_S) == 0, server.log.read_text()
    assert nginx_process.running(router) is None
    assert [one for one in family if one.is_running()] == []
