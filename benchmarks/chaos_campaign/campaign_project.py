"""A served project to break: two equal releases, a home of its own, its state on a small disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.chaos_campaign.container_without_init import ContainerWithoutInit
from benchmarks.toolbox import ROOT
from fettle import manifest
from fettle import params as params_file
from fettle.adapters import bento_store, process_identity
from fettle.json_values import JsonObject
from fettle.project import Project
from fettle.release import release_store, signing
from fettle.rollout.promotion.rollout_plan import section_to_json
from fettle.rollout.router import model_servers
from fettle.rollout.supervisor import load_generator, order_queue, shadow_traffic
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout
from fettle.serving import api_key_file

DISK_BYTES = 256 * 2**20  # of the state's own disk, which a fault fills
COMMAND_S = 150.0
ORDER_S = 60.0
UP_S = 120.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command of `fettle` ended with."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str


class CampaignProject:
    """The project; `source` has a published `release` and the test split that it was judged on."""

    def __init__(self, source: Path, release: Path, scratch: Path) -> None:
        self.root = scratch / "project"
        self.described = Project(self.root, self.root)
        self.scratch = scratch
        self._copy(source)
        self.env = self._environment()
        self._container = ContainerWithoutInit(self.root, self.env, limit_s=COMMAND_S)
        self.place = StateLayout(self.root / ".fettle" / "canary")
        self.place.folder.mkdir(parents=True)
        self.on_disk_of_its_own = self._mount()
        self.pair = [self._publish(release, note) for note in ("", "\nThe same again.\n")]
        self.plan = section_to_json(params_file.load(self.root / "params.yaml").promote)
        port, control, feedback = model_servers.free_ports(3)
        self.serving = ServingState(
            "127.0.0.1", port, control, feedback, champion=self.pair[0], lease_s=self.lease_s
        )
        self.place.write_serving(self.serving)
        first = {"digest": self.pair[0].release, "bento": self.pair[0].tag, "model_version": "1"}
        manifest.write_json(self.root / ".fettle" / "last.json", {"release": first})
        self.requests = scratch / "requests"
        held = shadow_traffic.held_out_requests([self.root], Path(self.pair[0].folder))
        load_generator.write(self.requests, held)

    @property
    def lease_s(self) -> float:
        """The lease of the plan."""
        return float(str(self.plan["lease_s"]))

    @property
    def key(self) -> str:
        """The API key of the project's own home."""
        return str(api_key_file.read({"XDG_CONFIG_HOME": self.env["XDG_CONFIG_HOME"]}))

    def _copy(self, source: Path) -> None:
        self.root.mkdir(parents=True)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copyfile(source / name, self.root / name)
        for name in ("ingest", "validate"):
            shutil.copytree(source / "artifacts" / name, self.root / "artifacts" / name)

    def _environment(self) -> dict[str, str]:
        home = self.scratch / "home"
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FETTLE_")},
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "BENTOML_HOME": str(self.scratch / "bentoml"),
            "PYTHONPATH": str(ROOT),  # not sys.path: in a test run it has files that hide packages
            "OMP_NUM_THREADS": "1",
        }
        api_key_file.make(env)
        return env

    def _mount(self) -> bool:
        """Put the state on a small disk of its own, where this user may."""
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "fettle-chaos"]
        try:
            done = subprocess.run([*words, self.place.folder], capture_output=True, check=False)
        except OSError:
            return False
        if done.returncode == 0:
            self.place.folder.chmod(0o755)
        return done.returncode == 0

    def _publish(self, release: Path, note: str) -> PinnedRelease:
        """Publish a copy of the release with a word more in its card: another digest."""
        draft = self.scratch / "draft"
        shutil.copytree(release, draft, ignore=shutil.ignore_patterns("__pycache__"))
        doc = json.loads((draft / "release.json").read_text())
        card = draft / "card.md"
        card.write_text(card.read_text() + note)
        if "card.md" in doc["files"]:
            doc["files"]["card.md"] = manifest.sha256_file(card)
            manifest.write_json(draft / "release.json", doc)
        folder, digest = release_store.publish(draft, self.root / "releases")
        shutil.rmtree(draft)
        version, home = digest[: manifest.SHORT], Path(self.env["BENTOML_HOME"])
        tag = bento_store.build(folder, name=str(doc["name"]), version=version, home=home)
        signing.ensure(folder, bento_store.bento_folder(tag, home), self.env)
        return PinnedRelease(folder.name, tag, str(folder))

    def fettle(self, *words: str) -> CommandResult:
        """Run `fettle WORDS` in the project."""
        code, out, err = self._container.run(
            [sys.executable, "-P", "-m", "fettle.cli.main", *words]
        )
        return CommandResult(words, code, out, err)

    def begin(self) -> JsonObject:
        """Order a rollout of the release that does not serve; return what became of it."""
        serving = self.place.serving() or self.serving
        now = serving.challenger if serving.promoted else serving.champion
        other = next(one for one in self.pair if now is None or one.release != now.release)
        order = {"verb": "start", "challenger": asdict(other), "champion": None, "plan": self.plan}
        name = order_queue.submit_order(self.place, order, timeout_s=ORDER_S)
        answer = order_queue.await_answer(self.place, name, timeout_s=ORDER_S)
        return answer or {"error": f"no answer within {ORDER_S:g} s"}

    def open(self) -> None:
        """Start the supervisor by a command, and wait until the public address answers."""
        self.fettle("canary", "pause")  # refused, since there is no rollout; what serves is up
        deadline = time.monotonic() + UP_S
        while not model_servers.answers(self.serving.port, self.key):
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing serves after {UP_S:g} s: see {self.place.folder}")
            time.sleep(0.2)

    def ask(self, per_s: float) -> subprocess.Popen[str]:
        """Start the load."""
        words = load_generator.command(self.serving.port, per_s, self.requests)
        log = (self.scratch / "load.log").open("w")
        with log:
            return subprocess.Popen(
                words, cwd=self.root, env=self.env, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def leave(self) -> None:
        """Stop all that was started, and take the small disk away."""
        self.fettle("canary", "stop")
        for name in ("watchdog", "controller"):
            if (known := process_identity.read(self.place.folder / f"{name}.json")) is not None:
                known.end(timeout_s=10)
        self._container.close()
        if self.on_disk_of_its_own:
            kept = self.scratch / "state"
            shutil.copytree(self.place.folder, kept, symlinks=True, ignore_dangling_symlinks=True)
            subprocess.run(["umount", "--lazy", self.place.folder], check=False)
