"""A crashed worker comes back only with the bytes that were verified."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
from bento_line import Line

from fettle.errors import TransientError
from fettle.release import release_store, signing
from fettle.rollout.router import model_servers
from fettle.rollout.supervisor.state_layout import PinnedRelease
from fettle.rollout.supervisor.verified_copy import VerifiedCopies

pytestmark = pytest.mark.flows
READY_S = 60.0


def wait_ready(arms: model_servers.ModelServers, release: str) -> None:
    deadline = time.monotonic() + READY_S
    while not arms.ready(release):
        if time.monotonic() > deadline:
            raise TransientError(arms.last_words(release))
        time.sleep(0.1)


def workers(arms: model_servers.ModelServers, release: str) -> list[psutil.Process]:
    server = arms.find(release)
    assert server is not None
    return list(psutil.Process(server.pid).children(recursive=True))


def test_a_byte_flipped_before_a_crashed_worker_comes_back_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(tmp_path)
    folder, _ = release_store.publish(line.work.release, tmp_path / "releases")
    environ = {**line.keyed, "XDG_CONFIG_HOME": str(tmp_path / "keys")}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    built = line.store / "bentos" / "tiny" / folder.name
    signing.ensure(folder, built, environ)
    release = PinnedRelease(folder.name, line.tag, str(folder))
    copies, arms = (
        VerifiedCopies(tmp_path / "arms"),
        model_servers.ModelServers(tmp_path / "arms", environ, key=line.key),
    )
    try:
        arms.start(release.release, copies.prepare(release))
        wait_ready(arms, release.release)
        assert copies.why_changed(release) is None
        for path in ("service.py", "model/model.onnx"):  # of the store: nothing that runs is there
            (built / "src" / path).write_bytes(b"changed")
        first = workers(arms, release.release)
        for worker in first:
            worker.send_signal(signal.SIGKILL)
        wait_ready(arms, release.release)  # new workers, of the copy
        assert not {one.pid for one in first} & {w.pid for w in workers(arms, release.release)}

        model = copies_file(tmp_path, release)
        model.chmod(0o644)
        model.write_bytes(model.read_bytes()[:-1] + b"\x00")
        why = copies.why_changed(release)
        assert why is not None
        assert "got changed: src/model/model.onnx" in why
        for worker in workers(arms, release.release):
            worker.send_signal(signal.SIGKILL)
        time.sleep(5)
        assert not arms.ready(
            release.release
        )  # a worker refuses what its release.json does not list
    finally:
        arms.kill(release.release)


def copies_file(root: Path, release: PinnedRelease) -> Path:
    return root / "arms" / release.release / "bento" / "src" / "model" / "model.onnx"
