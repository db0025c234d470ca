"""What `bentoml serve` refuses to start, and what a server leaves when it ends or is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import served
from bento_line import JSON, SMALL, Line, half_sent, png, shapes

pytestmark = pytest.mark.flows


def refused(line: Line, what: str, *options: str, **added: str) -> tuple[int, str]:
    with subprocess.Popen(
        line.command(what, "--port", str(served.free_port()), *options),
        cwd=line.root,
        env={**line.env, "BENTOML_HOME": str(line.root / "refused"), **added},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said = process.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:  # it serves: its worker must not outlive the test
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, said.strip().splitlines()[-1]


def test_without_a_key_the_default_host_is_refused(line: Line) -> None:
    code, said = refused(line, str(line.work.release))
    assert code == 1
    assert said == (
        "Error: [serve] `serve` failed: this server has no API key, so it may listen on loopback "
        "only: got host 0.0.0.0, where anyone who reaches the port could use it; `bentoml serve` "
        "listens on every address unless told otherwise. Fix: add `--host 127.0.0.1`, or make a "
        "key with `fettle doctor --make-key` (or set FETTLE_API_KEY) and start again."
    )


def test_a_changed_release_is_not_served(line: Line, tmp_path: Path) -> None:
    folder = shutil.copytree(line.work.release, tmp_path / line.digest[:12])
    (folder / "labels.json").write_text('["right", "middle", "left"]')
    code, said = refused(line, str(folder), "--host", "127.0.0.1")
    assert code == 1
    assert said.startswith(
        "Error: [serve] `serve` failed: labels.json of the release is changed: got "
    )


def test_a_release_under_another_ones_name_is_not_served(line: Line, tmp_path: Path) -> None:
    folder = shutil.copytree(line.work.release, tmp_path / "0123456789ab")
    code, said = refused(line, str(folder), "--host", "127.0.0.1")
    assert code == 1
    assert said == (
        "Error: [serve] `serve` failed: the release is not the one that its name says: got "
        f"{line.digest[:12]}; it is named 0123456789ab, after the digest of what it held. Fix: "
        "delete it and run `fettle run`, which makes it again."
    )


def test_a_release_folder_is_served_without_a_key_on_loopback(line: Line, tmp_path: Path) -> None:
    folder = shutil.copytree(line.work.release, tmp_path / "releases" / line.digest[:12])
    port = served.free_port()
    command = line.command(str(folder), "--host", "127.0.0.1", "--port", str(port))
    env = {**line.env, "BENTOML_HOME": str(tmp_path / "home")}
    with served.serving(command, port=port, cwd=tmp_path, env=env) as one:
        status, answer = one.post(png(shapes(3)[2]), "image/png")
        assert (status, answer[0]["label"]) == (200, "right")
        assert one.post(b"[[1]]", JSON, host="evil.example")[0] == 403
        assert one.interrupt() == 0
    assert "Traceback" not in one.log.read_text()


def test_a_killed_server_leaves_no_worker_behind(line: Line) -> None:
    port = served.free_port()
    command = line.command(line.tag, "--host", "127.0.0.1", "--port", str(port))
    with served.serving(command, port=port, cwd=line.root, env=line.env) as one:
        workers = psutil.Process(one.process.pid).children(recursive=True)
        assert workers
        one.process.kill()
        one.process.wait(timeout=20)
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert alive == []


@pytest.fixture
def own(line: Line, tmp_path: Path) -> Iterator[served.Server]:
    """A server of one test's own, which may harm it."""
    port = served.free_port()
    command = line.command(str(line.work.release), "--host", "127.0.0.1", "--port", str(port))
    env = {**line.env, "BENTOML_HOME": str(tmp_path / "home")}
    with served.serving(command, port=port, cwd=tmp_path, env=env) as one:
        yield one


def test_a_server_told_to_stop_answers_what_it_began_and_is_gone(own: served.Server) -> None:
    with half_sent(own.port, SMALL) as link:
        time.sleep(0.3)  # the head has arrived
        own.process.terminate()
        time.sleep(0.5)
        assert own.process.poll() is None
        link.sendall(SMALL[len(SMALL) // 2 :])
        assert link.recv(15) == b"HTTP/1.1 200 OK"
    assert own.process.wait(served.STOP_S) == 0
    assert "Traceback" not in own.log.read_text()


def test_a_killed_worker_is_made_again_and_leaves_no_gauge_behind(own: served.Server) -> None:
    workers = set(psutil.Process(own.process.pid).children())
    assert len(workers) == 2
    victim = min(workers, key=lambda one: one.pid)
    with half_sent(own.port, SMALL), half_sent(own.port, SMALL), half_sent(own.port, SMALL):
        victim.kill()
        deadline = time.monotonic() + served.READY_S
        while len(alive := [w for w in children(own) if w != victim]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert len(set(alive) - workers) == 1
    for _ in range(20):
        assert own.post(SMALL, "image/png")[0] == 200
    text = own.get("/metrics")[2].decode()
    assert 'fettle_requests_total{method="POST",route="/predict",status="200"} 20.0' in text
    # the request for the metrics itself is at work; what the dead worker held is not counted
    assert "\nfettle_requests_running 1.0\n" in text


def children(server: served.Server) -> list[psutil.Process]:
    """Return the workers that live."""
    found = psutil.Process(server.process.pid).children()
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]
