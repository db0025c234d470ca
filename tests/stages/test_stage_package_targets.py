"""Package, of targets that ship beside the served one: their files, digests and evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sample_facts
from tiny_release import TARGETS, TinyRelease

from fettle import manifest
from fettle.errors import TamperedError
from fettle.facts.export_facts import ExportFacts
from fettle.measure import Measure
from fettle.serving import release_bundle

SERVED, BOARD = TARGETS
SPEEDUP = Measure(value=2.5, unit="x", n=20, low=2.0, high=3.0).to_dict()


def packaged(root: Path, **said: Any) -> TinyRelease:
    """Package where the second target is a board's, as select judged it."""
    work = TinyRelease(root)
    row: dict[str, Any] = {"target": BOARD, "verdict": "ship", "evidence": "emulated"}
    row |= {"reason": "within the budget", **said}
    facts = {"target": BOARD, "evidence": row["evidence"], "answered_by": "an emulator"}
    work.project.seal(f"evaluate@{BOARD}", facts={**facts, "next_command": "scp it there"})
    folder = work.project.folder("select")
    served = {"target": SERVED, "speedup": SPEEDUP}
    sample_facts.write_choice(folder, SERVED, served, row, why="the fastest")
    work.project.seal("select")
    work.package()
    return work


def test_a_verified_target_travels_with_its_digest_and_its_evidence(tmp_path: Path) -> None:
    work = packaged(tmp_path)
    place = work.release / "targets" / BOARD
    told = json.loads((place / "target.json").read_text())
    assert (told["evidence"], told["answered_by"]) == ("emulated", "an emulator")
    assert (told["reason"], told["next_command"]) == ("within the budget", "scp it there")
    exported = manifest.read(work.project.folder(f"export@{BOARD}"), ExportFacts, verify=False)
    files = {file.path: file.sha256 for file in exported.files}
    assert told["files"] == [{"path": path, "sha256": files[path]} for path in sorted(files)]
    assert told["digest"] == manifest.digest_of(files)
    for path, digest in files.items():
        assert manifest.sha256_file(place / path) == digest
    stated = json.loads((work.release / "release.json").read_text())
    assert stated["targets"] == {BOARD: told["digest"]}
    assert f"targets/{BOARD}/target.json" in stated["files"]
    assert stated["target"] == SERVED


def test_a_changed_byte_of_it_is_refused(tmp_path: Path) -> None:
    work = packaged(tmp_path)
    path = work.release / "targets" / BOARD / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(TamperedError, match=f"targets/{BOARD}/model.onnx of the release is chang"):
        release_bundle.verify(work.release)


@pytest.mark.parametrize(
    ("verdict", "evidence"),
    [
        ("inconclusive", "emulated"),
        ("refused", "emulated"),
        ("compiled", "compile-only"),
        ("unavailable", "not measured"),
        ("ship", "compile-only"),
        ("ship", "measured"),
    ],
)
def test_nothing_unverified_is_carried(tmp_path: Path, verdict: str, evidence: str) -> None:
    work = packaged(tmp_path, verdict=verdict, evidence=evidence)
    assert not (work.release / "targets").exists()
    assert "targets" not in json.loads((work.release / "release.json").read_text())
