from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import served
from rehearsed import wait_for
from tiny_project import ROOT
from tiny_release import TinyRelease

from fettle import manifest, project
from fettle.adapters import bento_store, process_identity
from fettle.cli import serve
from fettle.errors import BusyError, ProjectError
from fettle.release import release_store, signing
from fettle.rollout.router import model_servers, nginx_process
from fettle.rollout.supervisor import supervisor_launch
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout

pytestmark = pytest.mark.flows


class Released:
    """A project whose last release is in a store; `fettle` runs in it with an empty home."""

    def __init__(self, root: Path) -> None:
        work = TinyRelease(root / "project")
        self.folder = work.project.root
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copyfile(ROOT / name, self.folder / name)
        version = str(work.package().facts.digest)[:12]
        self.env = served.environment(root / "served")
        self.store = Path(self.env["BENTOML_HOME"])
        self.tag = bento_store.build(work.release, name="tiny", version=version, home=self.store)
        self.signed, _ = release_store.publish(work.release, self.folder / "releases")
        self.built = bento_store.bento_folder(self.tag, self.store)
        self.config = Path(self.env["HOME"]) / ".config"
        signing.ensure(self.signed, self.built, {"XDG_CONFIG_HOME": str(self.config)})
        last = {"release": {"bento": self.tag}}
        manifest.write_json(self.folder / ".fettle" / "last.json", last)

    def command(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "fettle.cli.main", "serve", *options]

    def run(self, *options: str, **added: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options),
            cwd=self.folder,
            env={**self.env, **added},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return Released(tmp_path_factory.mktemp("released"))


def test_print_only_prints_a_line_that_can_be_run(released: Released) -> None:
    done = released.run("--print-only", "--port", "3001")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    own = released.folder / ".fettle" / "serve" / "127.0.0.1-3001"
    name, _, version = released.tag.partition(":")
    assert words == [
        "env",
        "BENTOML_DO_NOT_TRACK=True",
        "PYTHONDONTWRITEBYTECODE=1",
        f"BENTOML_HOME={own}",
        *(sys.executable, "-m", "bentoml", "serve"),
        str(released.store / "bentos" / name / version),
        *("--host", "127.0.0.1", "--port", "3001"),
        *("--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "60"),
    ]
    assert not own.exists()


def test_localhost_is_turned_into_an_address(released: Released) -> None:
    done = released.run("--print-only", "--host", "localhost")
    assert done.stdout.partition(" --host ")[2].startswith("127.0.0.1 --port 3000 ")


def test_another_host_is_refused_without_a_key(released: Released) -> None:
    done = released.run("--host", "0.0.0.0")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "fettle: this server has no API key, so it may listen on loopback only: got host 0.0.0.0, "
        "where anyone who reaches the port could use it; `bentoml serve` listens on every address "
        "unless told otherwise. Fix: add `--host 127.0.0.1`, or make a key with "
        "`fettle doctor --make-key` (or set FETTLE_API_KEY) and start again.\n"
    )
    assert released.run("--host", "0.0.0.0", "--print-only", FETTLE_API_KEY="k").returncode == 0


def test_a_tag_that_is_not_there_is_refused(released: Released) -> None:
    done = released.run("tiny:none", "--print-only")
    assert done.returncode == 2
    assert done.stderr.startswith("fettle: no Bento tiny:none in the store: got nothing in ")


def test_the_last_release_is_served_until_ctrl_c(released: Released) -> None:
    port = served.free_port()
    command, own = released.command("--port", str(port)), f".fettle/serve/127.0.0.1-{port}"
    with served.serving(command, port=port, cwd=released.folder, env=released.env) as server:
        image = (b"[[0, 255], [0, 255]]", "application/json")
        assert server.post(*image)[0] == 401
        key = (released.config / "fettle" / "api_key").read_text().strip()
        assert server.post(*image, x_api_key=key)[1][0]["label"] == "right"
        metrics = released.folder / own / "prometheus_multiproc_dir"
        written = {path.name for path in metrics.iterdir()}

        second = released.run("--port", str(port))
        assert second.returncode == 2
        assert second.stderr.startswith(
            f"fettle: the server cannot listen on 127.0.0.1 port {port}: got Address already in use"
        )
        assert written
        assert {path.name for path in metrics.iterdir()} >= written

        assert server.interrupt() == 0
    said = server.log.read_text()
    assert said.startswith(
        f"serving {released.tag}; Ctrl-C ends it. In another terminal:\n"
        "  curl -H 'content-type: image/jpeg' -H \"Authorization: Bearer "
        f'$(cat "{released.config}/fettle/api_key")" --data-binary @photo.jpg '
        f"http://127.0.0.1:{port}/predict\n"
    )
    assert "Traceback" not in said
    bento_store.check_port("127.0.0.1", port)  # it is free again


@pytest.fixture
def canary(released: Released) -> Iterator[StateLayout]:
    """The supervisor's folder, empty; nothing of it runs or is left at the end."""
    home = project.Project(released.folder, released.folder)
    place = supervisor_launch.layout_of(home)
    place.folder.mkdir()
    yield place
    supervisor_launch.stop(home)
    shutil.rmtree(place.folder)


def test_the_champion_of_a_canary_is_served_alone_behind_its_address(
    released: Released, canary: StateLayout
) -> None:
    port, place = served.free_port(), canary
    champion = PinnedRelease(released.signed.name, released.tag, str(released.signed))
    control, feedback = served.free_port(), served.free_port()
    place.write_serving(ServingState("127.0.0.1", port, control, feedback, champion=champion))
    command = released.command("--port", str(port))
    with served.serving(command, port=port, cwd=released.folder, env=released.env) as server:
        image = b"[[0, 255], [0, 255]]"
        key = (released.config / "fettle" / "api_key").read_text().strip()
        assert server.post(image, "application/json")[0] == 401
        status, headers, answer = server.send(
            "POST", "/predict", image, content_type="application/json", x_api_key=key
        )
        assert (status, json.loads(answer)[0]["label"]) == (200, "right")
        wait_for(lambda: any(one["status"] == 200 for one in attempts(place)))
        (line,) = [one for one in attempts(place) if one["status"] == 200]
        assert (line["id"], line["arm"]) == (headers["x-request-id"], "champion")

        second = released.run("--port", str(port))
        assert (second.returncode, second.stdout) == (BusyError.exit_code, "")
        assert second.stderr == (
            f"fettle: this project is served already: got http://127.0.0.1:{port}; one address a "
            "project. Fix: use it, or stop it: `fettle canary stop`.\n"
        )
        assert server.interrupt() == 0
    assert server.log.read_text().startswith(
        f"serving {released.tag}; Ctrl-C ends it. In another terminal:\n  curl "
    )
    bento_store.check_port("127.0.0.1", port)
    assert process_identity.read(place.watchdog) is None
    assert (arms_left(place), nginx_process.running(place.router)) == ([], None)


def test_a_champion_whose_bento_was_changed_is_not_served(
    released: Released, canary: StateLayout
) -> None:
    port, place = served.free_port(), canary
    champion = PinnedRelease(released.signed.name, released.tag, str(released.signed))
    control, feedback = served.free_port(), served.free_port()
    place.write_serving(ServingState("127.0.0.1", port, control, feedback, champion=champion))
    source = released.built / "src" / "service.py"
    was = source.read_bytes()
    source.write_bytes(was + b"# one more line\n")
    done = released.run("--port", str(port))
    source.write_bytes(was)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"fettle: {released.built} is not what was signed: got changed: src/service.py; "
    )
    assert (process_identity.read(place.watchdog), arms_left(place)) == (None, [])


def arms_left(place: StateLayout) -> list[model_servers.RunningServer]:
    """The releases that still run."""
    return model_servers.ModelServers(place.arms, {}, key=None).running()


def attempts(place: StateLayout) -> list[dict[str, Any]]:
    """The router's log."""
    log = (place.router / "attempts.log").read_text()
    return [json.loads(line) for line in log.splitlines()]


def flipped(file: Path) -> bytes:
    """Flip one bit; return what it was."""
    was = file.read_bytes()
    file.write_bytes(was[:-2] + bytes([was[-2] ^ 1]) + was[-1:])
    return was


@pytest.mark.parametrize(
    "name",
    ["release/model/model.onnx", "release/gate.json", "bento/bento.yaml", "bento/src/gate.json"],
)
def test_one_flipped_byte_is_not_served(released: Released, name: str) -> None:
    kind, _, path = name.partition("/")
    folder = released.signed if kind == "release" else released.built
    was = flipped(folder / path)
    done = released.run("--port", str(served.free_port()))
    (folder / path).write_bytes(was)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"fettle: {folder} is not what was signed: got changed: {path}; ")


def test_an_unsigned_release_is_not_served(released: Released) -> None:
    signature = signing.of_release(released.signed)
    was = signature.read_bytes()
    signature.unlink()
    done = released.run("--port", str(served.free_port()))
    signature.write_bytes(was)
    assert done.returncode == 2
    assert done.stderr == (
        f"fettle: {released.signed.name} has no signature: got no file {signature}; a release is "
        "verified before it starts. Fix: run `fettle run`, which signs what it publishes.\n"
    )


def last(folder: Path, tag: str, at: float) -> None:
    path = folder / ".fettle" / "last.json"
    manifest.write_text(path, json.dumps({"release": {"bento": tag}}))
    os.utime(path, (at, at))


@pytest.fixture
def empty(tmp_path: Path) -> project.Project:
    return project.Project(tmp_path, tmp_path)


def test_the_newest_release_counts_also_of_a_workspace(empty: Any) -> None:
    last(empty.root, "digits:old", 100)
    last(empty.state / "ws" / "photos", "photos:new", 200)
    assert serve.last_tag(empty) == "photos:new"
    last(empty.root, "digits:newest", 300)
    assert serve.last_tag(empty) == "digits:newest"


def test_before_the_first_release_the_next_step_is_named(empty: Any) -> None:
    with pytest.raises(ProjectError) as caught:
        serve.last_tag(empty)
    assert str(caught.value) == "there is no release to serve yet. Fix: run `fettle run` first."
