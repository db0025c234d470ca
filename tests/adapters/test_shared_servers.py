"""A team's server is asked before the work: what keeps it from taking a run, in words."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fettle.adapters import local_servers, shared_servers
from fettle.errors import ProjectError, TransientError, UserError
from fettle.project import Project
from fettle.server_addresses import ServerAddress, Variable

LETS_IN = {f"Basic {base64.b64encode(b'me:s3cret').decode()}", "Bearer s3cret"}
PREFECT: Variable = "PREFECT_API_URL"
TRACKING: Variable = "MLFLOW_TRACKING_URI"


class _Locked(BaseHTTPRequestHandler):
    """Healthy for everybody, the rest for who has the key."""

    def do_GET(self) -> None:
        if self.path.startswith("/nowhere"):
            status = 404
        elif self.path.endswith("/health") or self.headers.get("Authorization") in LETS_IN:
            status = 200
        else:
            status = 401
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"experiment": {"experiment_id": "0", "name": "Default"}}')

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Locked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def said(variable: Variable, url: str, environ: dict[str, str] | None = None) -> str:
    address = ServerAddress(variable, url, "the environment")
    found = shared_servers.fault(address, environ or {})
    return f"{type(found).__name__}: {found}" if found else ""


def test_a_prefect_that_wants_a_key_says_which(url: str) -> None:
    assert said(PREFECT, f"{url}/api") == (
        f"UserError: Prefect's server does not let this user in: got status 401 from {url}/api "
        "(PREFECT_API_URL, by the environment); a run is told to it from the first stage on. Fix: "
        "set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING to USER:PASSWORD, or take PREFECT_API_URL "
        "out: the project then keeps its own."
    )
    assert said(PREFECT, f"{url}/api", {"PREFECT_API_KEY": "s3cret"}) == ""
    assert said(PREFECT, f"{url}/api", {"PREFECT_API_AUTH_STRING": "me:s3cret"}) == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_mlflow_that_wants_a_key_says_which_and_never_shows_the_one_it_got(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with_wrong = url.replace("//", "//me:wr0ng@")
    found = said(TRACKING, with_wrong)
    assert found.startswith("UserError: MLflow's server does not let this user in: got ")
    assert found.endswith(
        f" from {url.replace('//', '//***@')} (MLFLOW_TRACKING_URI, by the environment); a run is "
        "told to it from the first stage on. Fix: set MLFLOW_TRACKING_TOKEN, or "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or take MLFLOW_TRACKING_URI out: "
        "the project then keeps its own."
    )
    assert "wr0ng" not in found
    assert said(TRACKING, url.replace("//", "//me:s3cret@")) == ""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    assert said(TRACKING, url) == ""


def test_a_server_that_is_something_else_or_silent_is_refused_in_seconds(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert said(TRACKING, f"{url}/nowhere").startswith(
        f"TransientError: MLflow's server does not take this run: got status 404 from {url}/nowhere"
    )
    monkeypatch.setattr(shared_servers, "TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        port = silent.getsockname()[1]
        assert "got timed out from" in said(PREFECT, f"http://127.0.0.1:{port}/api")
        assert time.monotonic() - begun < 5
    assert "got Connection refused from postgresql://***@127.0.0.1:9/runs (" in said(
        TRACKING, "postgresql://me:s3cret@127.0.0.1:9/runs"
    )
    assert "Name or service" in said(PREFECT, "http://nobody.invalid/api") or "name resolution" in (
        said(PREFECT, "http://nobody.invalid/api")
    )


def test_a_run_is_refused_and_nothing_of_that_kind_is_started_instead(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Project(tmp_path, tmp_path)
    monkeypatch.setenv(PREFECT, f"{url}/api")
    with pytest.raises(UserError, match="does not let this user in"):
        shared_servers.refuse(home, {PREFECT: f"{url}/api"})
    found = local_servers.running(home, "prefect")
    assert found is not None
    assert (found.own, found.api, found.page) == (False, f"{url}/api", url)
    assert not local_servers.stop(home, "prefect")
    monkeypatch.setenv(PREFECT, "http://127.0.0.1:9/api")
    assert local_servers.running(home, "prefect") is None
    with pytest.raises(TransientError, match="Prefect's server does not take this run: got Conn"):
        local_servers.launch(home, "prefect")
    monkeypatch.setenv(PREFECT, "prefect")
    with pytest.raises(ProjectError, match="PREFECT_API_URL names no server: got 'prefect'"):
        shared_servers.refuse(home, {PREFECT: "prefect"})
