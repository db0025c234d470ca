"""A project whose releases are played by arm_server.py: a real router, controller and journal.

Every test image is of class "1"; a release answers the class that `answers` says.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import arm_server
import pyarrow as pa
import pyarrow.parquet as pq
import sample_facts
from served import free_port

from fettle import manifest
from fettle.adapters import bento_store
from fettle.data import image_table
from fettle.project import Project
from fettle.release import signing
from fettle.rollout.router import model_servers, nginx_process
from fettle.rollout.supervisor import rehearsal
from fettle.rollout.supervisor.controller import Controller
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout

CLASSES = ["0", "1", "2", "3"]  # arm_server.py says that it named 3, then 1
IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
STALL_S = 30.0  # without a request or a move: then nothing more will come
MOST_REQUESTS = 20_000  # 2,600 promote: latency waits for 65 slow requests of the champion
# Margins so wide that a few dozen requests decide: the rehearsal's plan, shortened once more.
PLAN: dict[str, Any] = {
    **rehearsal.PLAN,
    "shadow_requests": 10,
    "shadow_gates": ["disagreement"],
    "steps": [{"weight_percent": 50.0, "margin_multiplier": 1.0, "gates": ["errors", "latency"]}],
    "step_min_s": 0.0,
    "step_budget_requests": 2000,  # a first look after 520
    "bake_s": 0.2,
    "bake_requests": 20,
    "alpha_rollback": 1e-6,  # on a loaded machine one arm may well be slower for a second
    "alpha_promote": 0.2,
    "errors_margin": 0.5,
    "accuracy_margin": 0.5,
    "latency_p95_ratio": 50.0,
    "disagreement_max": 0.5,
    "lease_s": 5.0,
}


class RolloutHarness:
    """The project; `tick_until` plays the controller's loop."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root, root)
        self.place = StateLayout(root / ".fettle" / "canary")
        self.place.folder.mkdir(parents=True)
        self._data(root)
        self.answers: dict[str, str] = {}
        self.serving = ServingState("127.0.0.1", free_port(), free_port(), free_port())
        self.controller: Controller | None = None
        self.again = root / "again"  # one line for every time that a new release was wanted

    def _data(self, root: Path) -> None:
        rows = [
            {**dict.fromkeys(image_table.SCHEMA.names), "row": str(index), "label": label}
            | {"split": "test" if label == "1" else "train", "bytes": IMAGE}
            for index, label in enumerate(["0", *["1"] * 20])  # the shadow asks each once
        ]
        table = pa.Table.from_pylist(rows, image_table.SCHEMA)
        for name, content in (("ingest", table), ("validate", pa.table({"row": table["row"]}))):
            folder = root / "artifacts" / name
            folder.mkdir(parents=True)
            file = image_table.IMAGES if name == "ingest" else image_table.ROWS
            pq.write_table(content, folder / file)
            manifest.write(folder, name, inputs={}, measures={}, facts=sample_facts.of(name))

    def release(self, number: int, *, answer: str = "1", passed: bool = True) -> PinnedRelease:
        """Publish a release that answers this class."""
        ingest = manifest.read(self.project.tree / "artifacts" / "ingest").digest
        draft = self.project.releases / f"draft-{number}"
        manifest.write_json(draft / "release.json", {"data": {"ingest": ingest}, "name": "tiny"})
        manifest.write_json(draft / "labels.json", CLASSES)
        accuracy = {"value": 0.9, "unit": "1", "n": 100, "low": 0.85, "high": 0.95}
        ratio = {"value": 2.0, "unit": "x", "n": 20, "low": 1.9, "high": 2.1}
        measures = {"accuracy": accuracy, "latency_ratio": ratio}
        gate = {"passed": passed, "failed": [], "number": number, "measures": measures}
        manifest.write_json(draft / "gate.json", gate)
        manifest.write_json(draft / "validation.json", {"passed": True})
        preprocess = {"size_px": 2, "channels": 1, "mean": 0.5, "std": 0.5}
        manifest.write_json(draft / "preprocess.json", preprocess)
        name = manifest.tree_digest(draft)[:12]
        folder = draft.rename(self.project.releases / name)
        self.answers[name] = answer
        built = bento_store.store() / "tiny" / name
        shutil.copytree(folder, built / "src")
        (built / "bento.yaml").write_text("service: service\n")
        signing.ensure(folder, built, os.environ)
        return PinnedRelease(name, f"tiny:{name}", str(folder))

    def fail(self, release: PinnedRelease) -> Path:
        """The file whose presence makes this release answer 500."""
        return self.place.folder / f"fail-{release.release}"

    def start(self, champion: PinnedRelease | None) -> Controller:
        """Start a controller on what is written, as after a kill; `champion` the first time."""
        known = self.place.serving()
        if known is None:
            known = ServingState(**{**asdict(self.serving), "champion": champion})
            self.place.write_serving(known)
        self.controller = Controller(
            self.project,
            self.place,
            known,
            command=self._command,
            alone=True,
            rerun=[sys.executable, "-c", f"open({str(self.again)!r}, 'a').write('again\\n')"],
        )
        self.controller.start()
        return self.controller

    def _command(self, release: str, _bento: Path, port: int) -> list[str]:
        answer = json.dumps([{"label": self.answers[release]}])
        fail = str(self.place.folder / f"fail-{release}")
        # 20 ms: latencies that a busy machine does not change beyond recognition
        return [sys.executable, arm_server.__file__, str(port), answer, fail, "0.02"]

    def order(self, challenger: PinnedRelease, **changed: Any) -> dict[str, Any]:
        """The order that begins a rollout."""
        return {"verb": "start", "challenger": asdict(challenger), "plan": {**PLAN, **changed}}

    def tick_until(self, *states: str) -> dict[str, Any]:
        """Tick until the rollout is in one of these states; return its status.

        Bounded in requests a phase; a loaded machine may take its time as long as any come.
        """
        assert self.controller is not None
        seen, deadline = None, 0.0
        while True:
            self.controller.tick()
            status = self.controller.status()
            if status["state"] in states:
                return status
            now = (status["state"], status["requests"])
            if now != seen:
                seen, deadline = now, time.monotonic() + STALL_S
            if status["requests"] > MOST_REQUESTS or time.monotonic() > deadline:
                raise AssertionError(f"not {states}, but {status}")
            if not self.controller.behind:
                time.sleep(0.02)

    def arm(self, release: PinnedRelease) -> model_servers.RunningServer | None:
        """The server of a release, if it lives."""
        return model_servers.ModelServers(self.place.arms, os.environ, key=None).find(
            release.release
        )

    def stop_arm(self, release: PinnedRelease) -> None:
        """End the server of a release, and wait until it is gone."""
        model_servers.ModelServers(self.place.arms, os.environ, key=None).kill(release.release)
        wait_for(lambda: self.arm(release) is None)

    def attempts(self) -> list[dict[str, Any]]:
        """The router's log."""
        log = (self.place.router / "attempts.log").read_text()
        return [json.loads(line) for line in log.splitlines()]

    def feedback(self, labels: list[dict[str, Any]]) -> tuple[int, Any]:
        """Send late labels to the public address; return the status and the JSON answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.serving.port, timeout=10)
        link.request("POST", "/feedback", json.dumps(labels), {"X-API-Key": "k"})
        answer = link.getresponse()
        text = answer.read()
        link.close()
        return answer.status, json.loads(text)

    def promote(self, challenger: PinnedRelease) -> dict[str, Any]:
        """Begin a rollout and promote it by order; users must be asking. Return its status."""
        assert self.controller is not None
        self.controller.obey(self.order(challenger))
        self.tick_until("shadow", "step", "bake")
        self.controller.obey({"verb": "promote"})
        return self.tick_until("promoted")

    def tick_while(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Tick as long as something holds."""
        assert self.controller is not None
        deadline = time.monotonic() + timeout_s
        while condition():
            assert time.monotonic() < deadline, "it never ended"
            self.controller.tick()
            time.sleep(0.01)

    def close(self) -> None:
        if self.controller is not None:
            self.controller.close()
        nginx_process.terminate(self.place.router, timeout_s=1)
        served = model_servers.ModelServers(self.place.arms, {}, key=None)
        for server in served.running():
            served.kill(server.release)


class Users:
    """Ask in threads until the block ends; `statuses` counts what they got."""

    def __init__(self, port: int, count: int = 2) -> None:
        self.statuses: Counter[int] = Counter()
        self.last_id = ""
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        while not self._stop.is_set():
            try:
                link.request("POST", "/predict", IMAGE, {"X-API-Key": "k"})
                answer = link.getresponse()
                answer.read()
                self.statuses[answer.status] += 1
                self.last_id = answer.headers["X-Request-Id"]
            except OSError:
                self.statuses[0] += 1
                link.close()
        link.close()


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
