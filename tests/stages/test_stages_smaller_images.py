"""Stages behind a compressed model that takes smaller images than its float model does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from fettle import manifest, params
from fettle.facts.compress_facts import CompressFacts
from fettle.facts.evaluate_facts import ANSWERS, EvaluateFacts
from fettle.hardware import onnx_cost
from fettle.hardware.runtimes import ort
from fettle.serving import release_bundle
from stages import inputs as first
from stages.__main__ import run_stage

ROOT = Path(__file__).resolve().parents[2]
LARGE, SMALL = 16, 12
TARGET = "x86_ort_fp32"
SETTINGS = (
    "ingest.split={train: 0.4, validation: 0.3, test: 0.3}",
    f"preprocess.size_px={LARGE}",
    "finetune.family=small_cnn",
    "finetune.options={width: 16, depth: 1}",
    "finetune.epochs_max=20",
    "finetune.learning_rate=1e-2",
    f"compress.recipe=[{{use: resolution, size_px: {SMALL}, recover_epochs: 4}}]",
    f"targets=[{TARGET}]",
    "evaluate.rounds=20",
)
STAGES = ("ingest", "validate", "finetune", "latency_table", "compress")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smaller")
    given = params.load(ROOT / "params.yaml", list(SETTINGS))
    text = json.dumps(given.model_dump(mode="json", by_alias=True))
    (folder / "params.yaml").write_text(text)
    (folder / "requirements.lock").symlink_to(ROOT / "requirements.lock")
    (folder / "bentos").symlink_to(ROOT / "bentos")
    first.write(folder)
    for stage in STAGES:
        run_stage(stage, None, folder, folder / "artifacts" / stage)
    for stage in ("export", "evaluate"):
        run_stage(stage, TARGET, folder, folder / "artifacts" / stage / TARGET)
    for stage in ("select", "verdict", "package"):
        run_stage(stage, None, folder, folder / "artifacts" / stage)
    return folder


def side_of(model: Path) -> int:
    return int(onnx.load(model).graph.input[0].type.tensor_type.shape.dim[3].dim_value)


def test_the_exported_model_takes_the_smaller_images_itself(project: Path) -> None:
    artifacts = project / "artifacts"
    assert side_of(artifacts / "finetune" / "model.onnx") == LARGE
    for stage in ("compress", f"export/{TARGET}"):
        model = artifacts / stage / "model.onnx"
        assert side_of(model) == SMALL
        assert "Resize" not in {node.op_type for node in onnx.load(model).graph.node}
    facts = manifest.read(artifacts / "compress", CompressFacts).facts
    assert facts.input_size_px == SMALL
    reference = load_file(artifacts / "compress" / "reference.safetensors")
    assert reference["input_pixels"].shape[1:] == (1, SMALL, SMALL)


def test_the_multiply_accumulates_are_counted_on_the_smaller_images(project: Path) -> None:
    read = manifest.read(project / "artifacts" / "compress")
    counted = onnx_cost.cost(
        project / "artifacts" / "compress" / "model.onnx", shape=(1, SMALL, SMALL)
    )
    assert read.measures["macs_after"].value == counted.macs
    assert read.measures["macs_after"].value < 0.7 * read.measures["macs_before"].value


def test_each_model_is_scored_on_the_images_it_takes(project: Path) -> None:
    folder = project / "artifacts" / "evaluate" / TARGET
    read = manifest.read(folder, EvaluateFacts)
    assert read.facts.parity is not None
    assert read.facts.parity.top1 == 1.0
    answers = load_file(folder / ANSWERS)
    for name, stage in (("baseline", "finetune"), ("candidate", "compress")):
        right = answers[name].argmax(axis=1) == answers["labels"]
        said = manifest.read(project / "artifacts" / stage).measures["accuracy"].value
        assert right.mean() == pytest.approx(said, abs=0.005), name
        assert said > 0.85, name
    assert read.measures["baseline_latency_p50_ms"].value > 0


def test_the_verdict_compares_them_on_the_same_test_rows(project: Path) -> None:
    verdict = json.loads((project / "artifacts" / "verdict" / "metrics.json").read_text())
    assert verdict["float_accuracy"] > 0.85
    assert verdict["accuracy"] > 0.85
    assert verdict["macs_ratio"] > 1.4


def test_the_release_makes_the_images_small(project: Path) -> None:
    release = release_bundle.load(project / "artifacts" / "package" / "release")
    assert release.preprocess.size_px == SMALL
    shipped = ort.open(project / "artifacts" / "export" / TARGET / "model.onnx", threads=1)
    pixels = np.zeros((2, 1, SMALL, SMALL), np.uint8)
    assert release.predict(pixels).argmax(axis=1).tolist() == (
        shipped.run(release.preprocess.normalise(pixels)).argmax(axis=1).tolist()
    )
