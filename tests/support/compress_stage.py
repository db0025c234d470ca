"""The compress stage on drawn stripes and chequerboards: its inputs, a run, a killed run."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sample_facts
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from fettle import manifest, params
from fettle.data import image_table, split_reader
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.models import export_onnx
from fettle.models.families import small_cnn
from fettle.params import Params
from fettle.recipes.recovery_training import CompressionJob
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


def picture(label: str, rng: np.random.Generator, *, noise: float = 40) -> bytes:
    """Draw noisy stripes across, stripes down, or a chequerboard."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] // 2
    pattern = {"across": y % 2, "down": x % 2, "checks": (x + y) % 2}[label]
    grey = np.clip(pattern * 160 + rng.normal(48, noise, (SIDE, SIDE)), 0, 255)
    kept = io.BytesIO()
    Image.fromarray(grey.astype(np.uint8)).save(kept, format="PNG")
    return kept.getvalue()


def write_images(ingest: Path, validate: Path, *, noise: float) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for split, count in COUNTS.items():
        for at in range(count):
            label = CLASSES[at % 3]
            row = {"row": f"{split}/{at}", "label": label, "split": split}
            rows.append({**row, "bytes": picture(label, rng, noise=noise)})
    table = pa.Table.from_pylist(rows, schema=image_table.SCHEMA)
    image_table.write(ingest / image_table.IMAGES, image_table.SCHEMA, [table])
    manifest.write(ingest, "ingest", inputs={}, measures={}, facts=sample_facts.of("ingest"))
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
    manifest.write(
        folder, "finetune", inputs={}, measures={}, facts=sample_facts.of("finetune", facts)
    )


def make_inputs(root: Path, *, epochs: int, noise: float = 40) -> Inputs:
    folders = {name: root / name for name in compress.READS}
    for folder in folders.values():
        folder.mkdir(parents=True)
    inputs = Inputs(folders, root, root / "scratch")
    write_images(folders["ingest"], folders["validate"], noise=noise)
    write_finetune(folders["finetune"], inputs, epochs=epochs)
    return inputs


def job(inputs: Inputs, params: Params, recorder: MemoryRecorder) -> CompressionJob:
    """Make the stage's own job on these inputs."""
    facts = manifest.read(inputs["finetune"], FinetuneFacts, verify=False).facts
    train, validation = (
        split_reader.images(inputs, params, split) for split in ("train", "validation")
    )
    data = compress.CompressionData(facts, train, validation)
    return compress.compression_job(params, inputs, recorder, data)


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


def validation_batch(inputs: Inputs) -> np.ndarray[Any, np.dtype[np.float32]]:
    pixels = split_reader.images(inputs, settings(), "validation").pixels
    return split_reader.preprocess(settings()).normalise(pixels)


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
