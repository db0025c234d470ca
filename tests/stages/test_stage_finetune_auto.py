"""`auto` is decided once, by finetune, and every later stage works with what it decided."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from ruamel.yaml import YAML

from fettle import manifest, params
from fettle.data import image_table, split_reader
from fettle.errors import ParamsError
from fettle.hardware import machine_fingerprint
from fettle.hardware.runtimes import ort
from fettle.params_scope import settle
from fettle.preprocessing import Preprocess
from fettle.stage_contract import Inputs
from stages.__main__ import run_stage

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, HEIGHT, SIDE_PX = 66, 44, 48  # 44 px are no multiple of 16; 48 is within a tenth
COUNTS = {"train": 120, "validation": 30, "test": 30}
CLASSES = ("bright", "dark", "striped")
STAGES = ("finetune", "latency_table", "compress")


def photo(label: str, draw: np.random.Generator) -> bytes:
    """A noisy landscape photo whose outer thirds a square crop cuts off."""
    level = {"bright": 200, "dark": 60, "striped": 130}[label]
    pixels = draw.normal(level, 25, size=(HEIGHT, WIDTH, 3))
    if label == "striped":
        pixels[::8] += 90
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_project(root: Path, *overrides: str) -> None:
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for split, count in COUNTS.items():
        for at in range(count):
            label = CLASSES[at % 3]
            row = {"row": f"{split}/{at}", "label": label, "split": split}
            row |= {"width": WIDTH, "height": HEIGHT, "bytes": photo(label, draw)}
            rows.append({name: row.get(name) for name in image_table.SCHEMA.names})
    table = pa.Table.from_pylist(rows, schema=image_table.SCHEMA)
    for name in ("ingest", "validate"):
        (root / "artifacts" / name).mkdir(parents=True)
    pq.write_table(table, root / "artifacts" / "ingest" / image_table.IMAGES)
    pq.write_table(table.select(["row"]), root / "artifacts" / "validate" / image_table.ROWS)
    for name in ("ingest", "validate"):
        manifest.write(
            root / "artifacts" / name, name, inputs={}, measures={}, facts=manifest.UnreadFacts({})
        )
    manifest.write_json(root / "inputs" / "machine.json", machine_fingerprint.fingerprint())
    fixed = (
        "finetune.family=small_cnn",
        "finetune.options={width: 4, depth: 1, blocks: 3}",
        "finetune.epochs_max=6",
        "compress.recipe=[]",
        "export.calibration_images=16",
        "targets=[x86_ort_fp32]",
    )
    doc = params.compose(ROOT / "examples" / "photos.yaml", [*fixed, *overrides])
    YAML(typ="rt").dump(doc, root / "params.yaml")


def run(root: Path, *names: str) -> None:
    for name in names:
        stage, _, target = name.partition("@")
        out = root / "artifacts" / stage / target
        run_stage(stage, target or None, root, out)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("auto")
    write_project(root)
    run(root, *STAGES, "export@x86_ort_fp32")
    return root


def facts(root: Path, name: str) -> dict[str, Any]:
    found = manifest.read(root / "artifacts" / name).facts.to_json()
    assert isinstance(found, dict)
    return found


def test_finetune_records_what_it_decided(project: Path) -> None:
    decided = facts(project, "finetune")["decided"]
    assert decided.pop("finetune.learning_rate") in (3e-4, 1e-3, 3e-3)
    assert decided == {
        "preprocess.size_px": SIDE_PX,
        "preprocess.mean": 0.5,
        "preprocess.std": 0.5,
        "finetune.freeze_batchnorm": False,  # from scratch: there are no statistics to keep
        "finetune.augment.flip_horizontal": True,
    }
    assert facts(project, "finetune")["size_px"] == SIDE_PX


def test_what_was_decided_is_said_in_the_terminal(project: Path) -> None:
    """The flow prints notes of this name (flows/stage_events.py)."""
    lines = (project / "records" / "finetune.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    said = [event["text"] for event in events if event.get("name") == "decision"]
    assert said[0] == (
        "preprocess.size_px is 48: half of the images have 44 px or more on their shorter side; "
        "small images keep their pixels"
    )
    assert said[1] == (
        "preprocess.mean is 0.5 and preprocess.std is 0.5: the usual, nothing is known"
    )
    assert said[2].startswith("images are flipped: mirrored ones are classified as well (")
    assert said[3].startswith("learning rate ")
    assert said[4].startswith(("the trained network is kept: ", "the linear probe is the model, "))
    assert facts(project, "finetune")["fine_tuning"]["said"] == said[2:]


def test_the_choice_images_are_training_images(project: Path) -> None:
    chosen = facts(project, "finetune")["fine_tuning"]
    assert chosen["choice_images"] == 30  # a quarter of the 120 for training
    assert facts(project, "finetune")["epochs"] <= 6
    curve = json.loads((project / "artifacts" / "finetune" / "curve.json").read_text())
    shares = {round(one["validation_accuracy"] * 30, 6) % 1 for one in curve}
    assert shares == {0.0}


@pytest.mark.parametrize("name", ["finetune", "compress", "export/x86_ort_fp32"])
def test_every_model_takes_the_decided_side(project: Path, name: str) -> None:
    folder = project / "artifacts" / name
    (model,) = folder.rglob("*.onnx")
    session = ort.open(model, threads=1)
    logits = session.run(np.zeros((2, 3, SIDE_PX, SIDE_PX), dtype=np.float32))
    assert logits.shape == (2, len(CLASSES))


def test_a_later_stage_reads_the_decision_from_what_it_depends_on(project: Path) -> None:
    """export reads neither finetune nor its params: compress hands the decision on."""
    assert facts(project, "compress")["decided"] == facts(project, "finetune")["decided"]


def test_the_release_would_carry_the_decided_preprocessing(project: Path) -> None:
    settled = settle(params.load(project / "params.yaml"), facts(project, "finetune")["decided"])
    assert split_reader.preprocess(settled) == Preprocess(
        size_px=SIDE_PX, channels=3, mean=0.5, std=0.5, fit="crop"
    )


def test_the_same_project_decides_and_trains_the_same_again(project: Path, tmp_path: Path) -> None:
    write_project(tmp_path)
    run(tmp_path, "finetune")
    first, second = (manifest.read(root / "artifacts" / "finetune") for root in (project, tmp_path))
    assert second.digest == first.digest


def test_what_a_person_wrote_stands(project: Path, tmp_path: Path) -> None:
    overrides = (
        "preprocess.size_px=16",
        "preprocess.mean=[0.4, 0.5, 0.6]",
        "finetune.learning_rate=1e-2",
        "finetune.epochs_max=1",
    )
    write_project(tmp_path, *overrides)
    run(tmp_path, "finetune")
    assert sorted(facts(tmp_path, "finetune")["decided"]) == [
        "finetune.augment.flip_horizontal",
        "finetune.freeze_batchnorm",
        "preprocess.std",
    ]
    settled = settle(params.load(tmp_path / "params.yaml"), facts(tmp_path, "finetune")["decided"])
    inputs = Inputs(
        {name: tmp_path / "artifacts" / name for name in ("ingest", "validate")}, tmp_path, tmp_path
    )
    assert split_reader.images(inputs, settled, "test").pixels.shape == (30, 3, 16, 16)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("preprocess.size_px=7", "preprocess.size_px: either auto, or a whole number 8 to 1024"),
        ("preprocess.size_px=big", "preprocess.size_px: either auto, or a whole number 8 to 1024"),
        ("preprocess.size_px=64.5", "preprocess.size_px: either auto, or a whole number 8 to 1024"),
        ("preprocess.mean=1.5", "preprocess.mean: either auto, a number 0 to 1, or a list of such"),
        ("preprocess.std=0", "preprocess.std: either auto, a number 0.001 to 1, or a list of"),
        ("preprocess.mean=[0.5, 0.5]", "mean has 2 numbers, for 3 channels: give one number"),
        ("preprocess.fit=squash", "preprocess.fit: Input should be 'stretch', 'crop' or 'pad'"),
        ("finetune.learning_rate=0", "finetune.learning_rate: either auto, or a number above 0"),
        ("finetune.learning_rate=fast", "finetune.learning_rate: either auto, or a number above 0"),
        (
            "finetune.choice_fraction=0",
            "linear_probe: true, learning_rate: auto, augment.flip_horizontal: auto needs images "
            "to choose by: set choice_fraction above 0, for example 0.1",
        ),
        ("finetune.choice_fraction=0.6", "choice_fraction: Input should be less than or equal to"),
        ("finetune.augment.crop_scale_min=0", "crop_scale_min: Input should be greater than 0"),
    ],
)
def test_a_wrong_value_is_refused_before_any_work(override: str, text: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params.load(ROOT / "examples" / "photos.yaml", [override])
    assert text in str(caught.value)
    assert str(caught.value).startswith("photos.yaml has 1 problem\n")
