"""Make compressed models in this process, by the stage `compress`, from recipes set by hand.

The search's own recipes are measured by other rows.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.context import Prepared
from fettle.data.split_reader import Images
from fettle.hardware.runtimes import ort
from fettle.params import Params, load
from fettle.preprocessing import Floats
from fettle.recorder import NullRecorder
from fettle.stage_contract import Inputs
from stages import compress

Recipe = Sequence[Mapping[str, object]]

# A small model a data set, by trials by hand. Students of the large network where that is many
# times too large (docs/decisions/0033); on photos of 96 px a student pays for its layers at full
# resolution (0031). Fashion-MNIST's float model is itself a small net: a cut to a twelfth loses 1.1
# points after 40 epochs and 0.6 after 100; beside one trained for 8 epochs (88.2 % right, not 89.9)
# it would lose 0.2 after 40, a student of width 12 1.5 after 60.
SMALL: dict[str, Recipe] = {
    "digits": (
        {"use": "student", "options": {"width": 8, "depth": 1, "blocks": 4}, "epochs": 150},
    ),
    "fashion": (
        {
            "use": "prune",
            "keep_fraction": 0.29,
            "steps": 3,
            "importance": "l2",
            "recover_epochs": 2,
        },
        {"use": "distil", "epochs": 100, "learning_rate": 4e-3},
    ),
    "photos": (
        {
            "use": "student",
            "options": {"width": 8, "depth": 1, "blocks": 5, "stem_stride": 4},
            "epochs": 100,
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Made:
    """A compressed model and what it took to make it from the float model."""

    onnx: Path
    seconds: float


def spoken(recipe: Recipe) -> str:
    """Name a recipe's techniques in order."""
    return " > ".join(str(step["use"]) for step in recipe)


def with_recipe(one: Prepared, recipe: Recipe) -> Params:
    """Return the data set's params with another recipe."""
    return load(one.tree / "params.yaml", [f"compress.recipe={json.dumps(list(recipe))}"])


def make(one: Prepared, recipe: Recipe, folder: Path) -> Made:
    """Take the float model through `recipe`, from nothing kept, into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    inputs = Inputs(one.inputs.folders, one.inputs.project, scratch)
    started = time.perf_counter()
    compress.run(with_recipe(one, recipe), inputs, out, NullRecorder())
    return Made(out / "model.onnx", time.perf_counter() - started)


def answers(onnx: Path, one: Prepared, images: Images) -> Floats:
    """Run a model file over images in ONNX Runtime: logits [n, classes]."""
    session = ort.open(onnx, threads=1)
    batch = one.batch(images)
    return np.concatenate([session.run(batch[at : at + 64]) for at in range(0, len(batch), 64)])
