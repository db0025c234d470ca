"""`fettle gc`: dry unless told, and what is needed stays, whoever needs it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_project import ROOT
from typer.testing import CliRunner

from fettle import manifest
from fettle.cli import commands
from fettle.errors import BusyError, ProjectError
from fettle.project import Project, hold
from fettle.rollout.supervisor.state_layout import PinnedRelease, ServingState, StateLayout

DAY_S = 86_400
OLD_S = time.time() - 100 * DAY_S


class Household:
    """A project with nine releases, the later the newer, and leftovers of every kind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / ".fettle"
        self.place = StateLayout(self.state / "canary")
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copyfile(ROOT / name, root / name)
        self.releases = [self.release(number) for number in range(9)]

    def release(self, number: int) -> PinnedRelease:
        name = f"{number:012x}"
        folder = self.root / "releases" / name
        doc = {"name": "tiny", "data": {"ingest": f"images-{number}"}}
        manifest.write_json(folder / "release.json", doc)
        built = self.root / "store" / "bentos" / "tiny" / name
        built.mkdir(parents=True)
        (built / "bento.yaml").write_text("service: service\n")
        for suffix in (".sig", ".bento.sig", ".lineage.json"):
            paper = folder.with_name(f"{name}{suffix}")
            paper.touch()
            os.utime(paper, (OLD_S + number, OLD_S + number))
        return PinnedRelease(name, f"tiny:{name}", str(folder))

    def serve(self, champion: int, challenger: int | None = None, state: str | None = None) -> None:
        rollout = None if challenger is None else "20260101-000000-aaaaaa"
        self.place.folder.mkdir(parents=True, exist_ok=True)
        serving = ServingState("127.0.0.1", 1, 2, 3, champion=self.releases[champion])
        if challenger is not None:
            self.rollout(str(rollout), champion, challenger, state or "step")
        self.place.write_serving(
            ServingState(
                **{
                    **{name: getattr(serving, name) for name in serving.__dataclass_fields__},
                    "challenger": None if challenger is None else self.releases[challenger],
                    "rollout": rollout,
                    "state": state,
                }
            )
        )

    def rollout(self, name: str, champion: int, challenger: int, state: str) -> Path:
        folder = self.place.rollout(name)
        folders = {
            "champion": self.releases[champion].folder,
            "challenger": self.releases[challenger].folder,
        }
        manifest.write_json(folder / "begin.json", {"since": 0, "edges": [], "folders": folders})
        manifest.write_json(folder / "status.json", {"state": state})
        (folder / "journal.jsonl").write_text("{}\n")
        return folder

    def left(self) -> list[int]:
        """The numbers of the releases that are there."""
        return [n for n, one in enumerate(self.releases) if Path(one.folder).is_dir()]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Household:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("FETTLE_TOOLCHAINS", str(tmp_path / "toolchains"))
    monkeypatch.chdir(tmp_path)
    return Household(tmp_path)


def gc(*words: str) -> dict[str, Any]:
    """Run it with --json; return each kind by its name."""
    done = CliRunner().invoke(commands.app, ["gc", "--json", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return {one["kind"]: one for one in json.loads(done.stdout)}


def old(path: Path) -> Path:
    """Make a file, or a folder with one, that was not touched for a hundred days."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "file").write_text("x" * 1000)
    for one in (path / "file", path):
        os.utime(one, (OLD_S, OLD_S))
    return path


def test_nothing_is_removed_unless_it_is_told_to(house: Household) -> None:
    house.serve(champion=0)
    found = gc("--keep", "3")["releases"]
    assert [Path(path).name for path in found["paths"]][::4] == [f"{n:012x}" for n in range(1, 6)]
    assert found["bytes"] > 0
    assert house.left() == list(range(9))
    text = CliRunner().invoke(commands.app, ["gc", "--keep", "3"]).stdout
    assert "may go" in text
    assert "champion, challenger, the last 3, the last run's, those of a rollout that is " in text
    assert house.left() == list(range(9))


def test_what_serves_and_the_newest_stay_with_their_papers_and_bentos(house: Household) -> None:
    house.serve(champion=0, challenger=2, state="promoted")
    gc("--keep", "3", "--yes")
    assert house.left() == [0, 2, 6, 7, 8]
    papers = sorted(path.name for path in (house.root / "releases").glob("*.sig"))
    assert papers == sorted(f"{n:012x}{s}" for n in (0, 2, 6, 7, 8) for s in (".sig", ".bento.sig"))
    bentos = sorted(int(path.name, 16) for path in (house.root / "store/bentos/tiny").iterdir())
    assert bentos == [0, 2, 6, 7, 8]


def test_a_rollout_under_way_keeps_its_releases_though_another_serves(house: Household) -> None:
    house.serve(champion=8)
    house.rollout("20260102-000000-bbbbbb", 1, 3, "paused")
    gc("--keep", "1", "--yes")
    assert house.left() == [1, 3, 8]


def test_the_last_run_of_a_workspace_keeps_its_release(house: Household) -> None:
    last = {"release": {"folder": f"releases/{4:012x}"}}
    manifest.write_json(house.state / "ws" / "w" / ".fettle" / "last.json", last)
    gc("--keep", "1", "--yes")
    assert house.left() == [4, 8]


def test_a_serving_json_that_cannot_be_read_ends_it_all(house: Household) -> None:
    house.serve(champion=0)
    for name in ("serving.json", "serving.copy.json"):
        (house.place.folder / name).write_text("{")
    done = CliRunner().invoke(commands.app, ["gc", "--keep", "1", "--yes"])
    assert isinstance(done.exception, ProjectError)
    assert house.left() == list(range(9))


def test_during_a_run_nothing_is_removed(house: Household) -> None:
    with hold(Project(house.root, house.root), "fettle run"):
        child = subprocess.run(
            [sys.executable, "-m", "fettle.cli.main", "gc", "--yes", "--keep", "1"],
            cwd=house.root,
            capture_output=True,
            text=True,
            check=False,
        )
    assert child.returncode == BusyError.exit_code
    assert child.stderr.startswith("fettle: another run holds this project: got process ")
    assert house.left() == list(range(9))


def test_the_rollout_that_is_watched_and_the_last_ones_keep_their_journals(
    house: Household,
) -> None:
    house.serve(champion=7, challenger=8, state="promoted")  # 20260101-000000: the oldest
    for day in range(2, 6):
        house.rollout(f"2026010{day}-000000-cccccc", 0, 1, "rolled_back")
    gc("--keep", "2", "--yes")
    assert house.place.rollouts() == [
        "20260101-000000-aaaaaa",
        "20260104-000000-cccccc",
        "20260105-000000-cccccc",
    ]


def test_leftovers_go_and_what_is_young_or_in_use_stays(house: Household) -> None:
    house.serve(champion=8)
    gone = [
        old(house.state / "scratch" / "finetune-1"),
        old(house.place.arms / house.releases[1].release),
        old(house.state / "serve" / "127.0.0.1-3001"),
        old(house.state / "rehearsal"),
        old(house.root / "toolchains" / "iree-0123456789ab"),
        old(house.state / "mlflow-artifacts" / ("d" * 32)),
        old(house.state / "mlflow-artifacts" / ("e" * 32)),
    ]
    kept = [
        old(house.place.arms / house.releases[8].release),
        old(house.state / "mlflow-artifacts" / ("a" * 32)),
        old(house.root / "toolchains" / "vela-0123456789ab"),
        house.state / "scratch" / "finetune-2",
        house.state / "mlflow-artifacts" / ("f" * 32),
    ]
    (house.root / "toolchains" / "vela-0123456789ab" / "complete.json").touch()
    for path in kept[-2:]:
        path.mkdir(parents=True)
    with sqlite3.connect(house.state / "mlflow.db") as link:
        link.execute("CREATE TABLE runs (run_uuid TEXT, lifecycle_stage TEXT)")
        rows = [("a" * 32, "active"), ("d" * 32, "deleted")]
        link.executemany("INSERT INTO runs VALUES (?, ?)", rows)
    link.close()
    found = gc()
    assert {Path(path) for kind in found.values() for path in kind["paths"]} >= set(gone)
    gc("--yes")
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_a_workspace_stays_that_has_the_images_of_a_release_that_serves(house: Household) -> None:
    house.serve(champion=8)
    folders = [old(house.state / "ws" / f"w{n}") for n in range(4)]
    sealed = folders[0] / "artifacts" / "ingest" / "manifest.json"
    manifest.write_json(sealed, {"images": 1})
    os.utime(folders[0], (OLD_S, OLD_S))
    doc = {"name": "tiny", "data": {"ingest": manifest.sha256_file(sealed)}}
    manifest.write_json(Path(house.releases[8].folder) / "release.json", doc)
    (folders[3] / "params.yaml").touch()  # run today
    gc("--keep", "1", "--yes")
    assert [path.is_dir() for path in folders] == [True, False, False, True]


def test_what_cannot_be_removed_is_named(house: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    done = CliRunner().invoke(commands.app, ["gc", "--keep", "8", "--yes"])
    assert str(done.exception).startswith(
        f"2 files or folders could not be removed: got {house.releases[0].folder} (Permission "
    )
