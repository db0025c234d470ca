"""Hand each row of a benchmark its data sets, with the float model already trained on them.

A data set is a params file of the project with a few overrides, run as a workspace
(`fettle/workspace.py`) of this very tree: DVC's own cache keeps the float model, and trains it
again only when what it depends on has changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.toolbox import ROOT
from fettle import manifest, workspace
from fettle import project as projects
from fettle.data import split_reader
from fettle.data.split_reader import Images
from fettle.facts.finetune_facts import FinetuneFacts
from fettle.params import Params, load
from fettle.params_scope import settle
from fettle.preprocessing import Floats
from fettle.stage_contract import Inputs

# name: (params file, overrides). Fashion-MNIST trains on 12,000 and is judged on its own 10,000; a
# fifth of the images takes twice the epochs: 88.2 % of test are right after 8, 89.9 % after 24.
DATA: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits": ("params.yaml", ("release.name=bench_digits",)),
    "fashion": (
        "examples/fashion_mnist.yaml",
        (
            "ingest.options={train_images_max: 12000}",
            "finetune.epochs_max=24",
            "release.name=bench_fashion",
        ),
    ),
    "photos": ("examples/photos.yaml", ("preprocess.size_px=96", "release.name=bench_photos")),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A data set with its trained float model: `inputs` are ingest, validate and finetune."""

    name: str
    tree: Path
    params: Params
    inputs: Inputs

    @property
    def onnx(self) -> Path:
        """The float model as ONNX; its weights lie beside it in model.safetensors."""
        return self.inputs["finetune"] / "model.onnx"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        pre = self.params.preprocess
        return pre.channels, pre.side_px, pre.side_px

    def images(self, split: str, *, most: int | None = None) -> Images:
        """Read "train", "validation" or "test": pixels uint8 [N, C, S, S], labels [N]."""
        return split_reader.images(self.inputs, self.params, split, most=most)

    def batch(self, images: Images) -> Floats:
        """Normalise as the model wants it: float32 [N, C, S, S]."""
        return split_reader.preprocess(self.params).normalise(images.pixels[:])


@dataclass(frozen=True, slots=True)
class Context:
    """What a row may use. `data` are the data sets to measure (photos only with a folder)."""

    data: tuple[str, ...]
    photos: Path | None = None
    rounds: int = 200
    seed: int = 20
    threads: int = 1

    def prepare(self, name: str, *overrides: str) -> Prepared:
        """Train the float model of a data set, or take it from the cache."""
        place = self._place(name, overrides)
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "--quiet", "finetune"], cwd=place.tree,
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"the float model of {name} failed:\n{done.stderr[-3000:]}")
        folders = {
            stage: place.tree / "artifacts" / stage for stage in ("ingest", "validate", "finetune")
        }
        inputs = Inputs(folders, place.tree, place.tree / ".fettle" / "scratch" / "bench")
        decided = manifest.read(folders["finetune"], FinetuneFacts, verify=False).facts.decided
        params = settle(load(place.tree / "params.yaml"), decided)
        return Prepared(name, place.tree, params, inputs)

    def _place(self, name: str, overrides: tuple[str, ...]) -> projects.Project:
        file, own = DATA[name]
        home = projects.find(ROOT)
        os.environ.update(projects.environment(home))
        with projects.hold(home, "the benchmark"):
            place = workspace.prepare(home, ROOT / file, [*own, *overrides])
            if name == "photos":
                if self.photos is None:
                    raise RuntimeError("the data set 'photos' needs --photos FOLDER")
                projects.set_local(place.tree, "data", self.photos)
            projects.refresh_inputs(place, load(place.tree / "params.yaml"))
        return place
