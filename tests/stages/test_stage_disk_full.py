"""A full disk: the text says so, nothing half-written stays, the last good artefact comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_graph
import tiny_photos
from box import set_params
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fettle import manifest, params
from fettle.adapters import dvc_graph
from fettle.project import Project, environment, refresh_inputs, set_local
from stages.__main__ import explain

ROOT = Path(__file__).resolve().parents[2]
DISK_BYTES = 400_000
PHOTO_PX = 64  # noise: 12 kB a photo as PNG
DVC_YAML = """
stages:
  ingest:
    cmd: fettle stage ingest
    deps: [inputs/source.json]
    params: [seed, ingest]
    outs: [artifacts/ingest]
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="needs root on Linux, to mount a small disk",
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A project whose artifacts lie on a small disk of their own."""
    tree = tmp_path / "project"
    place = tree / "artifacts"
    place.mkdir(parents=True)
    tiny_graph.make(tree, sleep=0)
    (tree / "dvc.yaml").write_text(DVC_YAML)
    (tree / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    set_params(tree / "params.yaml", {"ingest.source": "image_folder"})
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "fettle-test", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs to mount a small disk: {done.stderr.strip()}")
    yield tree
    tiny_graph.stop()
    subprocess.run(["umount", str(place)], check=True)


def ingest(tree: Path, photos: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the stage on `count` photos a class, as the flow does; return its exit code."""
    for label in ("left", "right"):
        (photos / label).mkdir(parents=True, exist_ok=True)
        for at in range(count):
            seed = at if label == "left" else 10_000 + at
            data = tiny_photos.png(seed, size_px=PHOTO_PX)
            (photos / label / f"{at}.png").write_bytes(data)
    project = Project(tree, tree)
    for key, value in environment(project).items():
        monkeypatch.setenv(key, value)
    set_local(tree, "data", photos)
    refresh_inputs(project, params.load(tree / "params.yaml"))
    return tiny_graph.run(tree, "ingest")


def test_a_full_disk_is_said_and_the_last_good_artefact_comes_back(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact = disk / "artifacts" / "ingest"
    assert ingest(disk, tmp_path / "photos", 8, monkeypatch) == 0
    good = manifest.read(artefact).digest
    assert ingest(disk, tmp_path / "photos", 40, monkeypatch) == 255
    said = json.loads((disk / "records" / "ingest.error.json").read_text())
    assert said["kind"] == "transient"
    assert said["text"].startswith("the disk is full: got OSError: [Errno 28] ")
    assert said["text"].endswith(
        "; an artefact is written whole or not at all; the last good one is kept. Fix: free some "
        "space (`fettle doctor` says how much is left) and run again."
    )
    assert not artefact.exists()
    assert dvc_graph.restore(disk, "ingest")
    assert manifest.read(artefact).digest == good


def test_safetensors_own_error_is_known_as_a_full_disk(disk: Path) -> None:
    place = disk / "artifacts" / "model.safetensors"
    with pytest.raises(SafetensorError) as caught:
        save_file({"weight": np.zeros(DISK_BYTES, np.float32)}, place)
    failure = explain(caught.value)
    assert failure.kind == "transient"
    assert str(failure).startswith("the disk is full: got SafetensorError: ")
