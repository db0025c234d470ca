"""The servers of a rollout, played by tests/support/arm_server.py."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import arm_server
import pytest

from fettle.rollout.router import model_servers


@pytest.fixture
def served(tmp_path: Path) -> Iterator[model_servers.ModelServers]:
    made = model_servers.ModelServers(tmp_path / "arms", os.environ, key=None)
    yield made
    for server in made.running():
        made.kill(server.release)


def launch(
    served: model_servers.ModelServers, folder: Path, name: str = "aaa", port: int = 0
) -> model_servers.RunningServer:
    port = port or model_servers.free_port()
    command = [sys.executable, arm_server.__file__, str(port), name, str(folder / "fail")]
    return served.launch(name, command, port)


def wait_until_ready(served: model_servers.ModelServers, release: str) -> None:
    deadline = time.monotonic() + 10
    while not served.ready(release):
        assert time.monotonic() < deadline, served.last_words(release)
        time.sleep(0.02)


def test_an_arm_is_ready_when_it_answers_an_inference_not_when_it_listens(
    served: model_servers.ModelServers, tmp_path: Path
) -> None:
    (tmp_path / "fail").touch()
    server = launch(served, tmp_path)
    while model_servers.free(server.port):
        time.sleep(0.02)
    assert not served.ready("aaa")
    (tmp_path / "fail").unlink()
    wait_until_ready(served, "aaa")


def test_another_controller_finds_the_running_arm_and_starts_no_second(
    served: model_servers.ModelServers, tmp_path: Path
) -> None:
    server = launch(served, tmp_path)
    again = model_servers.ModelServers(tmp_path / "arms", os.environ, key=None)
    assert again.start("aaa", "never:built") == server


def test_a_stopped_arm_is_gone_and_its_port_is_known_for_the_next_start(
    served: model_servers.ModelServers, tmp_path: Path
) -> None:
    server = launch(served, tmp_path)
    wait_until_ready(served, "aaa")
    served.stop("aaa")
    assert served.find("aaa") is None
    known = served.known("aaa")
    assert known is not None
    assert known.port == server.port


def test_a_namesake_of_a_dead_arm_is_not_taken_for_it(
    served: model_servers.ModelServers, tmp_path: Path
) -> None:
    server = launch(served, tmp_path)
    stranger = model_servers.RunningServer("aaa", os.getpid(), server.born, server.port, [])
    assert model_servers.alive(server)
    assert not model_servers.alive(stranger)


def test_an_arm_that_dies_at_once_is_reported_with_its_last_words(
    served: model_servers.ModelServers,
) -> None:
    command = [sys.executable, "-c", "print('no model here'); raise SystemExit(3)"]
    served.launch("bbb", command, 3100)
    while served.find("bbb") is not None:
        time.sleep(0.02)
    assert not served.ready("bbb")
    assert served.last_words("bbb") == "no model here"


def test_each_arm_has_a_bentoml_home_of_its_own(
    served: model_servers.ModelServers, tmp_path: Path
) -> None:
    script = "import os; print(os.environ['BENTOML_HOME'])"
    for name in ("aaa", "bbb"):
        served.launch(name, [sys.executable, "-c", script], 3100)
    homes = []
    for name in ("aaa", "bbb"):
        while served.find(name) is not None:
            time.sleep(0.02)
        homes.append(served.last_words(name))
    assert homes == [str(tmp_path / "arms" / name / "home") for name in ("aaa", "bbb")]


def test_an_arm_that_ignores_sigterm_is_killed_after_its_drain(
    served: model_servers.ModelServers, tmp_path: Path
) -> None:
    script = (
        f"import signal, time; signal.signal({int(signal.SIGTERM)}, signal.SIG_IGN); "
        "print('deaf', flush=True); time.sleep(60)"
    )
    served.launch("ccc", [sys.executable, "-c", script], 3100)
    while served.last_words("ccc") != "deaf":
        time.sleep(0.02)
    served.stop("ccc", drain_s=0.2)
    assert served.find("ccc") is None


def test_a_server_that_cannot_be_written_down_is_not_left_behind(
    served: model_servers.ModelServers, tmp_path: Path
) -> None:
    (tmp_path / "arms" / "aaa" / "server.json").mkdir(parents=True)  # as a full disk: no such file
    port = model_servers.free_port()
    with pytest.raises(OSError, match=r"server\.json"):
        launch(served, tmp_path, port=port)
    time.sleep(1.0)  # it listens 0.2 s after it was started
    assert model_servers.free(port)
