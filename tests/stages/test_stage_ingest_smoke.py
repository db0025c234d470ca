"""`ingest.limit`: a few images, the split of all of them; what it makes ships nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_photos
from tiny_project import settings

from fettle import manifest
from fettle.cli.run import smoke_overrides
from fettle.data import image_table
from fettle.data.sources import image_folder
from fettle.facts.asked_goal import AskedBudget
from fettle.facts.verdict_facts import AskedBounds
from fettle.local_settings import location, set_local
from fettle.recorder import MemoryRecorder
from fettle.release import release_gate
from fettle.release.release_gate import PairedAnswers
from fettle.stage_contract import Inputs, Outputs
from stages import ingest


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label, count in (("cat", 60), ("dog", 30)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for at in range(count):
            image = tiny_photos.png(100 * count + at)
            (tmp_path / "photos" / label / f"{at}.png").write_bytes(image)
    set_local(tmp_path, "data", tmp_path / "photos")
    options = image_folder.Params()
    source = image_folder.fingerprint(options, location(tmp_path, options))
    manifest.write_json(tmp_path / "inputs" / "source.json", {"source": "image_folder", **source})
    return tmp_path


def run(root: Path, *overrides: str) -> tuple[Outputs, dict[str, str]]:
    out = root / f"out{len(list(root.iterdir()))}"
    out.mkdir()
    params = settings("ingest.source=image_folder", *overrides)
    outputs = ingest.run(params, Inputs({}, root, root / "scratch"), out, MemoryRecorder())
    rows = pq.read_table(out / image_table.IMAGES).to_pylist()
    return outputs, {row["row"]: row["split"] for row in rows}


def test_a_smoke_run_has_so_many_images_with_the_split_of_all(root: Path) -> None:
    whole, every = run(root)
    few, taken = run(root, *smoke_overrides(30)[:1])
    assert len(taken) == 30
    assert taken.items() <= every.items()
    assert Counter(row.partition("/")[0] for row in taken) == {"cat": 20, "dog": 10}
    assert few.facts.rows == 30
    assert few.facts.limited_from == 90
    assert whole.facts.limited_from is None
    assert "limited_from" not in whole.facts.to_object()
    assert run(root, "ingest.limit=30")[1] == taken


def test_a_limit_above_all_images_is_a_smoke_run_all_the_same(root: Path) -> None:
    outputs, taken = run(root, "ingest.limit=500")
    assert len(taken) == 90
    assert outputs.facts.limited_from == 90


def test_no_file_of_a_smoke_run_passes_the_gate() -> None:
    labels = np.arange(900) % 2
    answers = PairedAnswers(np.eye(2)[labels], np.eye(2)[labels], labels, ["cat", "dog"])
    measures = release_gate.compare(answers)
    budget = AskedBudget(metric="accuracy", drop_max=0.02, confidence=0.95)
    for smoke, passed in ((None, True), ((30, 90), False)):
        bounds = AskedBounds(budget=budget, limits=(), class_drop_max=None, smoke_images=smoke)
        judged = release_gate.judge(answers, measures, bounds, over=(), licences={})
        assert judged.passed is passed
    assert judged.failed == ("a smoke run on 30 of 90 images (ingest.limit): it ships nothing",)
