"""A user's project in an empty home folder, run once; the tests look at what it left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import loopback_only
import pytest
from box import Box, set_params
from PIL import Image

IMAGES = 400  # of the 1,797 digits
SETTINGS = {
    "ingest.split": "{train: 0.5, validation: 0.25, test: 0.25}",
    "validate.class_images_min": "10",
    "preprocess.size_px": "16",
    "preprocess.channels": "1",
    "finetune.family": "small_cnn",
    "finetune.options": "{}",
    "finetune.epochs_head": "1",
    # a probe of a network that never saw a photo does not survive a cut and three epochs
    "finetune.linear_probe": "false",
    "finetune.choice_fraction": "0",
    "finetune.augment": "{shift_fraction: 0.08, rotate_degrees: 10, scale_fraction: 0.1}",
    "finetune.freeze_batchnorm": "false",
    "finetune.weight_averaging": "none",
    "finetune.epochs_max": "8",
    "finetune.learning_rate": "5e-3",
    "finetune.batch_images": "32",
    "compress.recipe": "[{use: prune, keep_fraction: 0.5, steps: 1, recover_epochs: 1}, "
    "{use: distil, epochs: 2}]",
    "compress.budget.drop_max": "0.5",
    "verdict.class_drop_max": "null",  # two epochs of recovery lose whole classes, and shown so
    "targets": "[x86_ort_fp32, x86_ort_int8]",
    "evaluate.rounds": "20",
    "evaluate.parity_images": "40",
    "export.calibration_images": "64",
}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a few hundred real digits as a folder of PNG photos, one folder a class."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("photos")
    bunch = load_digits()
    for at in range(IMAGES):
        place = folder / f"digit-{bunch.target[at]}"
        place.mkdir(exist_ok=True)
        levels = (bunch.images[at] * 255 / 16).astype("uint8")
        Image.fromarray(levels).resize((24, 24)).save(place / f"{at:04d}.png")
    return folder


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[Box]:
    """Make the project with `fettle init`; its servers are stopped at the end."""
    home = tmp_path_factory.mktemp("home")
    made = Box(home, home / "fruit")
    done = made.fettle("init", "fruit", "--data", str(photos), cwd=home)
    assert done.returncode == 0, done.stderr
    set_params(made.project / "params.yaml", SETTINGS)
    yield made
    made.fettle("ui", "--stop")


@pytest.fixture(scope="session")
def first_run(box: Box) -> subprocess.CompletedProcess[str]:
    """Run the line once, from nothing, where only loopback exists (if the system allows that)."""
    alone = (sys.executable, loopback_only.__file__)
    done = box.fettle("run", before=alone)
    if done.returncode == loopback_only.NOT_ALLOWED:
        done = box.fettle("run")
    assert done.returncode == 0, done.stderr[-4000:]
    box.fettle("ui", "--stop")  # that server cannot be reached from outside its network
    return done


@pytest.fixture
def edit(box: Box) -> Iterator[Callable[[dict[str, str]], None]]:
    """Change the project's params for one test, then put them back."""
    path = box.project / "params.yaml"
    before = path.read_text()
    yield lambda settings: set_params(path, settings)
    path.write_text(before)
