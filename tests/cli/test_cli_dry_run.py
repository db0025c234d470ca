"""`fettle run --dry-run` says time, memory and disk before anything runs, and what from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_photos

from fettle import params

FETTLE = (sys.executable, "-P", "-m", "fettle.cli.main")
TABLE = "by the committed cost table and a probe of this machine"


def fettle(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FETTLE, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dry")
    tiny_photos.fill(root / "photos", ["cat", "dog"], 60, size_px=40)
    fettle(root, "init", "pets", "--data", "photos")
    return root / "pets"


def rows(home: Path, *words: str) -> dict[str, Any]:
    doc = json.loads(fettle(home, "run", "--dry-run", "--json", *words).stdout)
    assert doc["seconds"] > sum(row["seconds"] or 0 for row in doc["stages"])  # the servers too
    return {row["name"]: row for row in doc["stages"]}


def record(home: Path, stage: str, **known: object) -> None:
    asked = params.load(home / "params.yaml").finetune
    doc = {
        "started": 1.0,
        "seconds": 70.0,
        "output_digest": "0" * 64,
        "peak_memory_bytes": 777_000_000,
        "disk_bytes": 5_000_000,
        "host": platform.node(),
        "images": 120,
        "asked": {"finetune": asked.model_dump(mode="json")},
        **known,
    }
    (home / "records").mkdir(exist_ok=True)
    (home / "records" / f"{stage}.json").write_text(json.dumps(doc))


def test_what_never_ran_is_by_the_table_and_a_probe_and_what_ran_by_its_last_time(
    home: Path,
) -> None:
    text = fettle(home, "run", "--dry-run").stdout.splitlines()
    assert text[0].split() == ["stage", "will", "takes", "memory", "disk", "by", "because"]
    assert text[-1].startswith("16 of 16 stages to do: about ")
    assert text[-1].endswith(f" MB on disk; 16 {TABLE}")
    assert " GB of memory at most, " in text[-1]
    first = rows(home)
    assert {row["basis"] for row in first.values()} == {"estimated"}
    assert all(row["seconds"] > 0 and row["memory_bytes"] > 2**25 for row in first.values())

    fettle(home, "stage", "ingest")
    left = json.loads((home / "records" / "ingest.json").read_text())
    sealed = sum(p.stat().st_size for p in (home / "artifacts" / "ingest").iterdir())
    assert left["disk_bytes"] == pytest.approx(sealed, rel=0.3)  # the manifest aside
    assert left["images"] == 120
    assert left["asked"]["ingest"]["source"] == "image_folder"
    ingest = rows(home)["ingest"]
    assert ingest["basis"] == "measured"
    assert ingest["seconds"] == pytest.approx(left["seconds"] + 1, rel=0.05)
    assert ingest["memory_bytes"] == left["peak_memory_bytes"]
    assert ingest["disk_bytes"] == left["disk_bytes"]


def test_a_last_time_is_scaled_to_other_params_and_more_images(home: Path) -> None:
    record(home, "finetune")
    same = rows(home)["finetune"]
    assert (same["basis"], same["seconds"]) == ("measured", 71.0)
    assert same["memory_bytes"] == 777_000_000
    # in a workspace, which ran nothing itself: ten times the epochs
    more = rows(home, "--set", "finetune.epochs_max=70")["finetune"]
    assert more["basis"] == "scaled"
    assert 1.5 * 70 < more["seconds"] < 10 * 70
    record(home, "finetune", images=60)
    grown = rows(home)["finetune"]
    assert grown["basis"] == "scaled"
    assert 71 < grown["seconds"] <= 141
    summary = fettle(home, "run", "--dry-run").stdout.splitlines()[-1]
    assert "1 by their last time here, scaled to other params or images, " in summary


def test_another_machines_record_is_no_past_of_this_one(home: Path) -> None:
    record(home, "finetune", host="elsewhere")
    assert rows(home)["finetune"]["basis"] == "estimated"
