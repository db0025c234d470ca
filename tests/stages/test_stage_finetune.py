from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fettle import manifest, plugins
from fettle.data import image_table
from fettle.errors import ModelError
from fettle.models import export_onnx
from fettle.params import Params
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs, Outputs
from stages import finetune

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE_PX, CLASSES = 12, ["cross", "lying", "standing"]
COUNTS = {"train": 150, "validation": 60, "test": 9}


def bar(label: str, draw: np.random.Generator) -> bytes:
    """Draw a noisy PNG with a lying bar, a standing one, or both."""
    pixels = draw.integers(0, 90, size=(SIZE_PX, SIZE_PX)).astype(np.uint8)
    row, column = draw.integers(2, SIZE_PX - 2, size=2)
    if label != "standing":
        pixels[row, :] += 150
    if label != "lying":
        pixels[:, column] += 150
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


def write_artefacts(folder: Path, shares: dict[str, float]) -> None:
    """Write what ingest and validate hand over."""
    draw = np.random.default_rng(0)
    names, chances = list(shares), np.array(list(shares.values()))
    rows: list[dict[str, Any]] = []
    for split, count in COUNTS.items():
        for at in range(count):
            label = str(draw.choice(names, p=chances / chances.sum()))
            row = {
                "row": f"{split}/{at}",
                "label": label,
                "split": split,
                "bytes": bar(label, draw),
            }
            rows.append({name: row.get(name) for name in image_table.SCHEMA.names})
    for name in ("ingest", "validate"):
        (folder / name).mkdir()
    table = pa.Table.from_pylist(rows, schema=image_table.SCHEMA)
    pq.write_table(table, folder / "ingest" / image_table.IMAGES)
    pq.write_table(table.select(["row"]), folder / "validate" / image_table.ROWS)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artefacts")
    write_artefacts(folder, {"cross": 1, "lying": 1, "standing": 1})
    return folder


def parameters(**changed: Any) -> Params:
    """Take the repository's params.yaml with a tiny network."""
    from ruamel.yaml import YAML

    doc = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    doc["preprocess"] = {"size_px": SIZE_PX, "channels": 1, "mean": 0.5, "std": 0.5}
    doc["finetune"] |= {
        "family": "small_cnn",
        "options": {"width": 8, "depth": 2, "blocks": 2},
        "epochs_head": 1,
        "epochs_max": 12,
        "unfreeze_every_epochs": 1,
        "batch_images": 16,
        "learning_rate": 1e-2,
        "augment": {"shift_fraction": 0.05},
    } | changed
    return Params.model_validate_json(json.dumps(doc))


def run(
    artefacts: Path, folder: Path, params: Params, *, recorder: MemoryRecorder | None = None
) -> tuple[Outputs, Path]:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    inputs = Inputs({name: artefacts / name for name in finetune.READS}, folder, folder / "scratch")
    return finetune.run(params, inputs, out, recorder or MemoryRecorder()), out


def logits_of(model: Path, artefacts: Path, params: Params) -> np.ndarray:
    from fettle.data import split_reader

    inputs = Inputs({n: artefacts / n for n in finetune.READS}, artefacts, artefacts)
    pixels = split_reader.images(inputs, params, "validation").pixels
    return export_onnx.run_onnx(model, split_reader.preprocess(params).normalise(pixels))


@pytest.fixture(scope="module")
def trained(
    artefacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outputs, Path, MemoryRecorder]:
    recorder = MemoryRecorder()
    outputs, out = run(artefacts, tmp_path_factory.mktemp("t"), parameters(), recorder=recorder)
    return outputs, out, recorder


def test_the_stage_writes_model_weights_and_curve(
    trained: tuple[Outputs, Path, MemoryRecorder],
) -> None:
    _, out, _ = trained
    assert sorted(p.name for p in out.iterdir()) == [
        "curve.json",
        "model.onnx",
        "model.safetensors",
    ]


def test_the_network_learns_and_every_quality_is_measured_on_validation(
    trained: tuple[Outputs, Path, MemoryRecorder],
) -> None:
    measures = trained[0].measures
    assert sorted(measures) == [
        "accuracy",
        "calibration_error",
        "macro_f1",
        "recall.cross",
        "recall.lying",
        "recall.standing",
        "worst_recall",
    ]
    accuracy = measures["accuracy"]
    assert accuracy.value > 0.9
    assert accuracy.n == COUNTS["validation"]
    assert accuracy.low is not None
    assert accuracy.low < accuracy.value


def test_the_facts_rebuild_the_network_from_the_weights(
    trained: tuple[Outputs, Path, MemoryRecorder], artefacts: Path
) -> None:
    outputs, out, _ = trained
    facts = outputs.facts
    family = plugins.resolve("families", facts.family, where="x")
    model = family.build(
        family.Params(**facts.options),
        classes=len(facts.classes),
        channels=facts.channels,
        size_px=facts.size_px,
        project=out,
    )
    model.load_state_dict(load_file(out / "model.safetensors"))
    images = torch.randn(4, 1, SIZE_PX, SIZE_PX)
    with torch.no_grad():
        reference = model.eval()(images).numpy()
    np.testing.assert_allclose(
        export_onnx.run_onnx(out / "model.onnx", images.numpy()), reference, atol=1e-4
    )
    assert list(facts.classes) == CLASSES
    assert facts.trains is True
    assert facts.params == sum(p.numel() for p in model.parameters())
    assert facts.parity.relative < 1e-4


def test_the_curve_has_an_entry_an_epoch_and_no_clock(
    trained: tuple[Outputs, Path, MemoryRecorder],
) -> None:
    outputs, out, _ = trained
    curve = json.loads((out / "curve.json").read_text())
    assert [one["epoch"] for one in curve] == list(range(1, outputs.facts.epochs + 1))
    assert sorted(curve[0]) == [
        "epoch",
        "learning_rate",
        "phase",
        "train_loss",
        "validation_accuracy",
        "validation_loss",
    ]
    assert [one["phase"] for one in curve[:3]] == ["head", "unfreezing", "all"]


def test_the_recorder_hears_of_every_epoch(trained: tuple[Outputs, Path, MemoryRecorder]) -> None:
    outputs, _, recorder = trained
    epochs = outputs.facts.epochs
    steps = [step for name, _, step in recorder.scalars if name == "validation_accuracy"]
    assert steps == list(range(1, epochs + 1))
    assert {name for name, _, _ in recorder.scalars} == {
        "train_loss",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
    }
    fraction, text = recorder.progresses[0]
    assert fraction == pytest.approx(1 / 12)
    assert text.startswith("epoch 1 of at most 12 (head): validation accuracy ")


def test_the_same_inputs_give_the_same_bytes(
    trained: tuple[Outputs, Path, MemoryRecorder], artefacts: Path, tmp_path: Path
) -> None:
    outputs, out, _ = trained
    again, other = run(artefacts, tmp_path, parameters())
    assert manifest.list_files(out) == manifest.list_files(other)
    assert again == outputs


def test_a_killed_stage_resumes_to_the_same_bytes(
    trained: tuple[Outputs, Path, MemoryRecorder], artefacts: Path, tmp_path: Path
) -> None:
    class Killed(Exception):
        pass

    class Killing(MemoryRecorder):
        def progress(self, fraction: float, text: str) -> None:
            super().progress(fraction, text)
            if len(self.progresses) == 2:
                raise Killed

    with pytest.raises(Killed):
        run(artefacts, tmp_path, parameters(), recorder=Killing())
    assert [p.name for p in (tmp_path / "scratch").iterdir()] == ["checkpoint.safetensors"]
    _, out = run(artefacts, tmp_path, parameters())
    assert manifest.list_files(out) == manifest.list_files(trained[1])


def test_thresholds_are_folded_into_the_exported_model(tmp_path: Path) -> None:
    write_artefacts(tmp_path, {"cross": 1, "lying": 4, "standing": 4})
    plain, plain_out = run(tmp_path, tmp_path / "plain", parameters(epochs_max=7))
    recorder = MemoryRecorder()
    params = parameters(epochs_max=7, imbalance="thresholds")
    moved, out = run(tmp_path, tmp_path / "moved", params, recorder=recorder)
    assert recorder.notes["logit_offsets"].startswith("cross +")
    shift = logits_of(out / "model.onnx", tmp_path, params) - logits_of(
        plain_out / "model.onnx", tmp_path, params
    )
    assert (shift[:, 0] > shift[:, 1]).all()
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-4)
    assert moved.measures["worst_recall"].value > plain.measures["worst_recall"].value


def test_a_diverging_training_is_a_user_error(artefacts: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^training broke down: the loss is not a number: got "):
        run(artefacts, tmp_path, parameters(learning_rate=1e30))


@pytest.fixture
def given(trained: tuple[Outputs, Path, MemoryRecorder], tmp_path: Path) -> Path:
    path = tmp_path / "given.onnx"
    shutil.copyfile(trained[1] / "model.onnx", path)
    return path


def onnx_params(**options: Any) -> Params:
    return parameters(family="onnx_file", options=options)


def test_an_onnx_file_is_handed_on_as_it_is(
    trained: tuple[Outputs, Path, MemoryRecorder], given: Path, artefacts: Path, tmp_path: Path
) -> None:
    outputs, out = run(artefacts, tmp_path, onnx_params(path="given.onnx"))
    assert sorted(p.name for p in out.iterdir()) == ["curve.json", "model.onnx"]
    assert json.loads((out / "curve.json").read_text()) == []
    facts = outputs.facts.to_object()
    assert facts.pop("params") > 500
    assert facts == {
        "family": "onnx_file",
        "licence": None,  # no file LICENSE beside it
        "options": {},
        "classes": CLASSES,
        "channels": 1,
        "size_px": SIZE_PX,
        "trains": False,
        "epochs": 0,
        "notes": [],
    }
    assert outputs.measures["accuracy"] == trained[0].measures["accuracy"]


def test_labels_say_what_the_outputs_of_an_onnx_file_mean(
    given: Path, artefacts: Path, tmp_path: Path
) -> None:
    params = onnx_params(path="given.onnx", labels=["lying", "standing", "cross"])
    recorder = MemoryRecorder()
    outputs, out = run(artefacts, tmp_path, params, recorder=recorder)
    found = logits_of(out / "model.onnx", artefacts, params)
    reference = logits_of(given, artefacts, params)
    np.testing.assert_array_equal(found, reference[:, [2, 0, 1]])
    assert outputs.measures["accuracy"].value < 0.5
    assert recorder.notes == {"onnx_file": "the outputs are put into sorted class order"}


def test_an_onnx_file_of_other_classes_is_refused(given: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_artefacts(other, {"cross": 1, "lying": 1, "standing": 1, "zebra": 1})
    with pytest.raises(ModelError) as caught:
        run(other, tmp_path, onnx_params(path="given.onnx"))
    assert str(caught.value).startswith(
        "the ONNX model's outputs are not the data's classes: got 3 outputs, 4 classes (cross, "
        "lying, standing, zebra); there must be one output a class."
    )


def test_an_onnx_file_is_taken_without_torch(given: Path, artefacts: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "params.json").write_text(
        onnx_params(path="given.onnx").model_dump_json(by_alias=True)
    )
    code = f"""
import sys
from pathlib import Path
from fettle.params import Params
from fettle.recorder import NullRecorder
from stages import finetune
from fettle.stage_contract import Inputs
here = Path({str(tmp_path)!r})
folders = {{name: Path({str(artefacts)!r}) / name for name in finetune.READS}}
params = Params.model_validate_json((here / "params.json").read_text())
finetune.run(params, Inputs(folders, here, here / "scratch"), here / "out", NullRecorder())
assert (here / "out" / "model.onnx").is_file()
assert "torch" not in sys.modules
"""
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert found.returncode == 0, found.stderr
