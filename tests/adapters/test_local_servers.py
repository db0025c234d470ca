"""The local servers behind a proxy that is not there, and what a silent one leaves."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from fettle import manifest
from fettle.adapters import local_servers
from fettle.errors import TransientError
from fettle.project import Project

PROXY = "http://127.0.0.1:9"  # nothing listens at the discard port


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Healthy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path)


def record(project: Project, pid: int, url: str) -> Path:
    path = project.state / "prefect-server.json"
    manifest.write_json(path, {"kind": "prefect", "pid": pid, "url": url})
    return path


def test_a_server_of_this_machine_is_asked_past_every_proxy(
    project: Project, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, PROXY)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    record(project, psutil.Process().pid, url)
    assert local_servers.running(project, "prefect") is not None


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', "[]"])
def test_a_pid_file_that_a_crash_left_half_written_is_no_server(
    project: Project, text: str
) -> None:
    path = record(project, 1, "http://127.0.0.1:9")
    path.write_text(text)
    assert local_servers.running(project, "prefect") is None
    assert not local_servers.stop(project, "prefect")


def test_a_server_that_stays_silent_is_ended_before_the_next_try(project: Project) -> None:
    with subprocess.Popen(["sleep", "61"], start_new_session=True) as child:
        server = local_servers.Server("prefect", child.pid, PROXY)
        project.state.mkdir()
        (project.state / "prefect-server.log").write_text("starting\n")
        with pytest.raises(TransientError) as caught:
            local_servers.wait(project, server, timeout_s=0.5)
        assert not psutil.pid_exists(child.pid)
    assert "the prefect server did not start within 0 s: got starting" in str(caught.value)
