from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from fettle import manifest, params
from fettle.compress import compression_plan
from fettle.compress.compression_plan import Architecture, CompressionPlan
from fettle.data import image_table, split_reader
from fettle.errors import ModelError, ParamsError
from fettle.hardware.runtimes import ort
from fettle.models import export_onnx
from fettle.models.families import small_cnn
from fettle.params import Params
from fettle.recipes import compression_context
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs, Outputs
from fettle.training.training_loop import fit
from fettle.training.training_plan import TrainingData
from fettle.training.training_plan import TrainingPlan as TrainPlan
from stages import compress

ROOT = Path(__file__).resolve().parent.parent.parent
SIDE, CLASSES = 12, ("across", "checks", "down")
COUNTS = {"train": 96, "validation": 48, "test": 6}
OPTIONS = {"width": 16, "depth": 1, "blocks": 2}
PRUNE = "{use: prune, keep_fraction: 0.5, steps: 2, recover_epochs: 2}"
DISTIL = "{use: distil, epochs: 2}"


def settings(*overrides: str) -> Params:
    fixed = (
        "seed=3",
        f"preprocess={{size_px: {SIDE}, channels: 1, mean: 0.5, std: 0.5}}",
        "finetune.family=small_cnn",
        f"finetune.options={json.dumps(OPTIONS)}",
        "finetune.batch_images=32",
        "finetune.augment={shift_fraction: 0.05}",
        f"compress.recipe=[{PRUNE}, {DISTIL}]",
        "export.calibration_images=16",
        "targets=[x86_ort_fp32, x86_ort_int8]",
    )
    return params.load(ROOT / "params.yaml", [*fixed, *overrides])


def picture(label: str, rng: np.random.Generator) -> bytes:
    """Draw noisy stripes across, stripes down, or a chequerboard."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] // 2
    pattern = {"across": y % 2, "down": x % 2, "checks": (x + y) % 2}[label]
    grey = np.clip(pattern * 160 + rng.normal(48, 40, (SIDE, SIDE)), 0, 255)
    kept = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(kept, format="PNG")
    return kept.getvalue()


def write_images(ingest: Path, validate: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for split, count in COUNTS.items():
        for at in range(count):
            label = CLASSES[at % 3]
            row = {"row": f"{split}/{at}", "label": label, "split": split}
            rows.append({**row, "bytes": picture(label, rng)})
    table = pa.Table.from_pylist(rows, schema=image_table.SCHEMA)
    image_table.write(ingest / image_table.IMAGES, image_table.SCHEMA, [table])
    ids = pa.schema([("row", pa.string())])
    image_table.write(validate / image_table.ROWS, ids, [table.select(["row"])])


def network() -> nn.Module:
    return small_cnn.build(
        small_cnn.Params(**OPTIONS), classes=3, channels=1, size_px=SIDE, project=Path()
    )


def write_finetune(folder: Path, inputs: Inputs, *, epochs: int) -> None:
    torch.manual_seed(0)
    model = network()
    if epochs:
        train = split_reader.images(inputs, settings(), "train")
        validation = split_reader.images(inputs, settings(), "validation")
        data = TrainingData(
            train_pixels=train.pixels,
            train_labels=train.labels,
            validation_pixels=validation.pixels,
            validation_labels=validation.labels,
            normalise=split_reader.preprocess(settings()).normalise,
        )
        plan = TrainPlan(epochs_max=epochs, learning_rate=1e-2, seed=0, batch_images=32)
        fit(model, data=data, plan=plan)
    else:
        nn.init.zeros_(model.get_submodule("classifier").weight)  # type: ignore[arg-type] # a Linear
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    export_onnx.export(model, channels=1, size_px=SIDE, out=folder / "model.onnx")
    seal(folder, trains=True)


def seal(folder: Path, *, trains: bool) -> None:
    facts = {
        "family": "small_cnn" if trains else "onnx_file",
        "options": OPTIONS if trains else {},
        "classes": list(CLASSES),
        "channels": 1,
        "size_px": SIDE,
        "trains": trains,
    }
    manifest.write(folder, "finetune", inputs={}, measures={}, facts=facts)


def make_inputs(root: Path, *, epochs: int) -> Inputs:
    folders = {name: root / name for name in compress.READS}
    for folder in folders.values():
        folder.mkdir(parents=True)
    inputs = Inputs(folders, root, root / "scratch")
    write_images(folders["ingest"], folders["validate"])
    write_finetune(folders["finetune"], inputs, epochs=epochs)
    return inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("project"), epochs=8)


@dataclass
class Made:
    out: Path
    outputs: Outputs
    recorder: MemoryRecorder

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())

    def bytes(self) -> dict[str, str]:
        return {file.path: file.sha256 for file in manifest.list_files(self.out)}


def make(
    inputs: Inputs,
    out: Path,
    *overrides: str,
    recorder: MemoryRecorder | None = None,
    scratch: str = "s",
) -> Made:
    """Run the stage as its process does: with its own sections of params.yaml only."""
    out.mkdir(parents=True, exist_ok=True)
    recorder = recorder or MemoryRecorder()
    own = replace(inputs, scratch=out.parent / f"{out.name}-{scratch}")
    scoped = params.scope(settings(*overrides), compress.SECTIONS)
    return Made(out, compress.run(scoped, own, out, recorder), recorder)


@pytest.fixture(scope="module")
def made(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(inputs, tmp_path_factory.mktemp("made") / "compress")


def validation_batch(inputs: Inputs) -> np.ndarray[Any, np.dtype[np.float32]]:
    pixels = split_reader.images(inputs, settings(), "validation").pixels
    return split_reader.preprocess(settings()).normalise(pixels)


def test_it_writes_the_files_of_the_hand_over(made: Made) -> None:
    assert sorted(made.bytes()) == [
        "layers.json",
        "model.onnx",
        "model.safetensors",
        "plan.json",
        "reference.safetensors",
        "sensitivity.json",
    ]


def test_a_fresh_architecture_with_plan_and_weights_answers_like_the_reference(
    inputs: Inputs, made: Made
) -> None:
    model = network()
    compression_plan.apply(model, CompressionPlan.from_json(made.json("plan.json")))
    model.load_state_dict(load_file(made.out / "model.safetensors"))
    reference = load_arrays(made.out / "reference.safetensors")
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(validation_batch(inputs)))
    np.testing.assert_allclose(logits.numpy(), reference["logits"], atol=1e-4)


def test_the_onnx_answers_like_the_reference(inputs: Inputs, made: Made) -> None:
    reference = load_arrays(made.out / "reference.safetensors")
    logits = ort.open(made.out / "model.onnx", threads=1).run(validation_batch(inputs))
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)
    assert made.outputs.facts["parity"]["relative"] < 1e-4
    assert made.outputs.facts["parity"]["top1"] == 1.0


def test_the_reference_holds_the_first_validation_images_as_they_are(
    inputs: Inputs, made: Made
) -> None:
    reference = load_arrays(made.out / "reference.safetensors")
    pixels = split_reader.images(inputs, settings(), "validation").pixels
    assert np.array_equal(reference["input_pixels"], pixels)
    assert reference["logits"].dtype == np.float32


def test_it_is_smaller_and_still_right(made: Made) -> None:
    measures = made.outputs.measures
    assert measures["params_after"].value < 0.4 * measures["params_before"].value
    assert measures["macs_after"].value < 0.4 * measures["macs_before"].value
    assert measures["accuracy"].value > 0.9
    assert measures["accuracy_drop"].value < 0.1
    assert measures["accuracy"].n == COUNTS["validation"]


def test_layers_json_adds_up_to_the_measures(made: Made) -> None:
    rows, measures = made.json("layers.json"), made.outputs.measures
    for name in ("params_before", "params_after", "macs_before", "macs_after"):
        assert sum(row[name] for row in rows) == measures[name].value
    assert {row["layer"]: row["channels_after"] for row in rows}["classifier"] == 3


def test_each_step_states_what_it_did_and_what_it_left(made: Made) -> None:
    prune, distil = made.outputs.facts["steps"]
    assert [step["use"] for step in made.outputs.facts["recipe"]] == ["prune", "distil"]
    assert (prune["use"], distil["use"]) == ("prune", "distil")
    assert prune["params"] == distil["params"] == made.outputs.measures["params_after"].value
    assert prune["skipped"] == {"classifier": "protected by fettle/models/families/small_cnn.py"}
    assert distil["validation_accuracy"] == made.outputs.measures["accuracy"].value


def test_a_student_is_pruned_and_thinned_and_rebuilt_from_the_plan(
    inputs: Inputs, tmp_path: Path
) -> None:
    recipe = (
        "compress.recipe=[{use: student, options: {width: 16, depth: 2, blocks: 2}, epochs: 1},"
        " {use: prune, keep_fraction: 0.5, recover_epochs: 0}, {use: depth, recover_epochs: 0}]"
    )
    found = make(inputs, tmp_path / "out", recipe)
    plan = CompressionPlan.from_json(found.json("plan.json"))
    options = {"width": 16, "depth": 2, "blocks": 2}
    assert plan.architecture == Architecture("small_cnn", options)
    assert len(plan.replaced) == 1
    asked = small_cnn.Params(**options)
    size = {"classes": len(CLASSES), "channels": 1, "size_px": SIDE}
    model = small_cnn.build(asked, **size, project=tmp_path)
    compression_plan.apply(model, plan)
    model.load_state_dict(load_file(found.out / "model.safetensors"))
    reference = load_arrays(found.out / "reference.safetensors")
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(validation_batch(inputs)))
    np.testing.assert_allclose(logits.numpy(), reference["logits"], atol=1e-3)


def test_what_the_loss_says_to_each_block_and_group_is_written_down(made: Made) -> None:
    doc = made.json("sensitivity.json")
    layers = {row["layer"] for row in made.json("layers.json")}
    assert {group["name"] for group in doc["groups"]} < layers
    assert doc["blocks"] == []  # one layer a block here, and each widens
    assert [share for share, _ in doc["groups"][0]["losses"]] == [0.75, 0.5, 0.25]
    assert doc["loss"] > 0
    assert doc["skipped"] == {"classifier": "protected by fettle/models/families/small_cnn.py"}


def test_the_recorder_hears_of_every_epoch_once(made: Made) -> None:
    steps = [step for name, _, step in made.recorder.scalars if name == "validation_accuracy"]
    assert steps == [1, 2, 3, 4, 5, 6]
    texts = [text for _, text in made.recorder.progresses]
    assert texts[0] == "prune, step-1: epoch 1 of 2"
    assert texts[-1] == "distil, distil: epoch 2 of 2"
    fractions = [fraction for fraction, _ in made.recorder.progresses]
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_same_inputs_same_bytes(inputs: Inputs, made: Made, tmp_path: Path) -> None:
    assert make(inputs, tmp_path / "again").bytes() == made.bytes()


def test_an_empty_recipe_hands_the_float_model_on(inputs: Inputs, tmp_path: Path) -> None:
    found = make(inputs, tmp_path / "out", "compress.recipe=[]")
    before = load_file(inputs["finetune"] / "model.safetensors")
    after = load_file(found.out / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert found.json("plan.json") == CompressionPlan().to_json()
    assert found.outputs.facts["steps"] == []
    assert found.outputs.measures["accuracy_drop"].value == 0


class Killed(Exception):
    pass


class Fatal(MemoryRecorder):
    """Dies at a given progress report, as a killed process does after its checkpoint."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def progress(self, fraction: float, text: str) -> None:
        super().progress(fraction, text)
        if text == self.at:
            raise Killed(text)


def count_steps(work: Any) -> int:
    """Count optimizer steps while `work` runs."""
    taken = []
    handle = register_optimizer_step_post_hook(lambda *_args, **_kwargs: taken.append(1))
    try:
        work()
    except Killed:
        pass
    finally:
        handle.remove()
    return len(taken)


@pytest.mark.parametrize(
    ("at", "left"),
    [
        ("prune, step-1: epoch 1 of 2", 5),
        ("prune, step-1: epoch 2 of 2", 4),
        ("prune, step-2: epoch 1 of 2", 3),
        ("distil, distil: epoch 1 of 2", 1),
        ("distil, distil: epoch 2 of 2", 0),
    ],
)
def test_a_killed_run_repeats_no_finished_epoch_and_ends_with_the_same_bytes(
    inputs: Inputs, made: Made, tmp_path: Path, at: str, left: int
) -> None:
    batches = COUNTS["train"] // 32
    out = tmp_path / "out"
    first = count_steps(lambda: make(inputs, out, recorder=Fatal(at)))
    assert first == (6 - left) * batches
    again = MemoryRecorder()
    assert count_steps(lambda: make(inputs, out, recorder=again)) == left * batches
    finished = left == 0 or at.startswith("distil")  # a finished step is not even looked into
    assert finished != any(text.startswith("prune") for _, text in again.progresses)
    assert Made(out, made.outputs, made.recorder).bytes() == made.bytes()


def test_a_model_that_lost_everything_is_called_collapsed_in_the_facts(tmp_path: Path) -> None:
    untrained = make_inputs(tmp_path / "project", epochs=0)
    recipe = "{use: prune, keep_fraction: 0.5, recover_epochs: 0}"
    found = make(untrained, tmp_path / "out", f"compress.recipe=[{recipe}]")
    (step,) = found.outputs.facts["steps"]
    (note,) = step["notes"]
    assert note.startswith("accuracy collapsed: ")
    assert found.recorder.notes["compress.recipe[0]"] == note


def test_a_distillation_that_gains_nothing_is_said(inputs: Inputs, tmp_path: Path) -> None:
    recipe = "{use: distil, epochs: 1, learning_rate: 1e-12}"
    found = make(inputs, tmp_path / "out", f"compress.recipe=[{recipe}]")
    (step,) = found.outputs.facts["steps"]
    assert [note.partition(":")[0] for note in step["notes"]] == ["it gained nothing"]


def test_a_loss_that_breaks_down_names_the_rate_of_that_step(
    inputs: Inputs, tmp_path: Path
) -> None:
    recipe = "{use: distil, epochs: 2, learning_rate: 1e38}"
    with pytest.raises(ModelError, match="the loss is not a number") as caught:
        make(inputs, tmp_path / "out", f"compress.recipe=[{recipe}]")
    assert "Fix: divide compress.recipe[0].learning_rate by ten" in str(caught.value)


def test_a_technique_for_graphs_is_refused_in_the_recipe(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        make(inputs, tmp_path / "out", "compress.recipe=[{use: static_int8}]")
    assert (
        "compress.recipe[0].use: unknown name 'static_int8' (files of fettle/compress/techniques: "
        "depth, distil, low_rank, prune, qat, sparse, student); int8 and other precisions are the "
        "targets' (params.yaml: targets), not a step's"
    ) in str(caught.value)


@pytest.mark.parametrize(("targets", "expected"), [(["x86_ort_fp32"], 8), (["x86_ort_int8"], 8)])
def test_the_channel_multiple_comes_from_the_targets(targets: list[str], expected: int) -> None:
    assert compression_context.channel_multiple(targets) == expected


def test_widths_are_multiples_of_the_targets_vector(made: Made) -> None:
    pruned = [row for row in made.json("layers.json") if row["layer"] != "classifier"]
    assert [row["channels_after"] % 8 for row in pruned] == [0] * len(pruned)


def test_the_calibration_digest_covers_the_images_that_export_takes(
    inputs: Inputs, made: Made
) -> None:
    train = split_reader.images(inputs, settings(), "train")
    assert made.outputs.facts["calibration_digest"] == compress.images_digest(train, 16)
    shorter = replace(train, ids=train.ids[:20], pixels=train.pixels[:20])
    assert compress.images_digest(shorter, 16) == compress.images_digest(train, 16)
    assert compress.images_digest(train, 17) != compress.images_digest(train, 16)
    renamed = replace(train, ids=["other", *train.ids[1:]])
    assert compress.images_digest(renamed, 16) != compress.images_digest(train, 16)


@pytest.fixture(scope="module")
def onnx_inputs(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("onnx") / "finetune"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((inputs["finetune"] / "model.onnx").read_bytes())
    seal(folder, trains=False)
    return replace(inputs, folders={**inputs.folders, "finetune": folder})


def test_an_onnx_file_goes_through_unchanged(onnx_inputs: Inputs, tmp_path: Path) -> None:
    found = make(onnx_inputs, tmp_path / "out", "compress.recipe=[]")
    assert sorted(found.bytes()) == ["layers.json", "model.onnx", "reference.safetensors"]
    given = (onnx_inputs["finetune"] / "model.onnx").read_bytes()
    assert (found.out / "model.onnx").read_bytes() == given
    assert found.json("layers.json") == []
    assert found.outputs.facts["parity"]["max_abs"] == 0
    assert found.outputs.measures["accuracy"].value > 0.9
    assert found.outputs.measures["params_after"].value > 1000
    reference = load_arrays(found.out / "reference.safetensors")
    assert reference["logits"].shape == (COUNTS["validation"], 3)


@pytest.mark.parametrize("recipe", [[PRUNE], [PRUNE, DISTIL]])
def test_an_onnx_file_with_a_recipe_is_refused(
    onnx_inputs: Inputs, tmp_path: Path, recipe: Sequence[str]
) -> None:
    family = ("finetune.family=onnx_file", "finetune.options={path: m.onnx}")
    with pytest.raises(ParamsError) as caught:
        make(onnx_inputs, tmp_path / "out", f"compress.recipe=[{', '.join(recipe)}]", *family)
    names = "prune" if len(recipe) == 1 else "prune, distil"
    assert (
        f"an ONNX file cannot be pruned or trained here: got compress.recipe with {names}; family "
        "'onnx_file' has no module to act on: recipe must be []. Set compress.recipe to []; "
        "int8 targets are still quantized"
    ) in str(caught.value)


def test_an_onnx_file_goes_through_without_torch(onnx_inputs: Inputs, tmp_path: Path) -> None:
    folders = {name: str(path) for name, path in onnx_inputs.folders.items()}
    script = f"""
import sys
from pathlib import Path
from fettle import params
from fettle.recorder import NullRecorder
from stages import compress
from fettle.stage_contract import Inputs

folders = {{name: Path(path) for name, path in {folders!r}.items()}}
inputs = Inputs(folders, Path("."), Path({str(tmp_path / "scratch")!r}))
out = Path({str(tmp_path / "out")!r})
out.mkdir()
preprocess = "preprocess={{size_px: {SIDE}, channels: 1, mean: 0.5, std: 0.5}}"
settings = params.load(Path("params.yaml"), [preprocess, "compress.recipe=[]"])
compress.run(params.scope(settings, compress.SECTIONS), inputs, out, NullRecorder())
assert not {{"torch", "torch_pruning"}} & set(sys.modules), "torch was imported"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "reference.safetensors").is_file()
