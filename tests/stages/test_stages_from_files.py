"""Every stage that reads images makes of a large split what it makes of a small one.

Large: its pixels lie in a file, or are decoded for each batch. The artefacts are the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import compress_stage
import evaluate_stage
import pytest
from safetensors.numpy import load_file
from test_stage_finetune import parameters, write_artefacts
from test_stage_finetune import run as run_finetune
from tiny_project import TinyProject, settings

from fettle import lazy_array, manifest
from fettle.data import pixel_store
from fettle.recorder import MemoryRecorder
from stages import export

pytestmark = pytest.mark.slow  # eleven runs of stages

WAYS = {"file": "decoded once, into a temporary file", "on demand": "decoded anew for each batch"}


def enlarge(way: str, patch: pytest.MonkeyPatch) -> None:
    """Let any split count as large."""
    patch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    if way == "on demand":
        patch.setattr(pixel_store, "DECODED_BYTES_MAX", 0)


def contents(out: Path) -> dict[str, str]:
    return {file.path: file.sha256 for file in manifest.list_files(out)}


def test_finetune(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a probe, a mirror test, trials of rates and choice images."""
    write_artefacts(tmp_path, {"cross": 1, "lying": 1, "standing": 1})
    params = parameters(
        linear_probe=True,
        choice_fraction=0.25,
        learning_rate="auto",
        epochs_max=2,
        epochs_head=0,
        unfreeze_every_epochs=0,
        augment={"flip_horizontal": "auto"},
    )
    _, out = run_finetune(tmp_path, tmp_path / "small", params)
    assert len(contents(out)) == 3
    for way, told in WAYS.items():
        enlarge(way, monkeypatch)
        recorder = MemoryRecorder()
        _, same = run_finetune(tmp_path, tmp_path / way, params, recorder=recorder)
        assert contents(same) == contents(out), way
        assert told in recorder.notes["train_pixels"]
        assert told in recorder.notes["validation_pixels"]


def test_compress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = compress_stage.make_inputs(tmp_path, epochs=1)
    recipe = "compress.recipe=[{use: prune, keep_fraction: 0.5, recover_epochs: 1}]"
    small = compress_stage.make(inputs, tmp_path / "small", recipe)
    for way, told in WAYS.items():
        enlarge(way, monkeypatch)
        large = compress_stage.make(inputs, tmp_path / way, recipe)
        assert large.bytes() == small.bytes(), way
        assert large.outputs == small.outputs
        assert told in large.recorder.notes["train_pixels"]


def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = TinyProject(tmp_path)
    inputs = project.inputs("ingest", "validate", "compress", target="x86_ort_int8")
    made = []
    for name in ("small", *WAYS):
        if name in WAYS:
            enlarge(name, monkeypatch)
        out = tmp_path / name
        out.mkdir()
        made.append((export.run(settings(), inputs, out, MemoryRecorder()), contents(out)))
    assert made[0] == made[1] == made[2]


def test_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times differ from run to run; its answers do not."""
    evaluate_stage.here(monkeypatch)
    project = evaluate_stage.wide_project(tmp_path)
    evaluate_stage.int8(project)
    answers, accuracies = [], []
    for _ in range(2):
        outputs = evaluate_stage.run(project, "x86_ort_int8")
        kept = load_file(project.root / "answers.safetensors")
        answers.append({name: values.tolist() for name, values in kept.items()})
        accuracies.append(
            [outputs.measures[key] for key in ("accuracy", "churn", "accuracy_without_vnni")]
        )
        enlarge("file", monkeypatch)
    assert answers[0] == answers[1]
    assert accuracies[0] == accuracies[1]
