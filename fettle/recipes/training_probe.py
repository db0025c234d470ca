"""Training probe: time a few steps of the family's training on this machine, in a process apart.

`python -m fettle.recipes.training_probe` reads {"tree", "side_px", "classes"} from standard input
and writes {"image_s"}: the seconds of one image in a training step, augmentation included. Images
are noise: a step takes as long on any.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fettle.training.training_loop import Loss

SECONDS_MAX = 4.0  # of steps; building the network comes before
WARM_UP_STEPS = 2  # kernels are chosen in the first
STEPS_MAX = 20


def measure(tree: Path, *, side_px: int, classes: int) -> float:
    """Seconds of an image in a training step of the tree's params; steps end after SECONDS_MAX."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import numpy as np
    import torch

    from fettle import params, params_scope, plugins
    from fettle.recipes import float_model_training
    from fettle.recipes.training_setup import threads
    from fettle.training.training_loop import fit
    from fettle.training.training_plan import StopTraining, TrainingData

    torch.set_num_threads(threads())
    loaded = params.load(tree / "params.yaml")
    decided = {
        "preprocess.size_px": side_px,
        "preprocess.mean": 0.5,
        "preprocess.std": 0.5,
        "finetune.freeze_batchnorm": False,
    }
    settings = params_scope.settle(loaded, decided)
    family = plugins.resolve("families", settings.finetune.family, where="finetune.family")
    options = family.Params.model_validate_json(json.dumps(settings.finetune.options))
    channels, batch = settings.preprocess.channels, settings.finetune.batch_images
    model: nn.Module = family.build(
        options, classes=classes, channels=channels, size_px=side_px, project=tree
    )
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (batch, channels, side_px, side_px), dtype=np.uint8)
    labels = (np.arange(batch) % classes).astype(np.int64)
    data = TrainingData(
        train_pixels=np.concatenate([pixels] * (STEPS_MAX + WARM_UP_STEPS + 1)),
        train_labels=np.tile(labels, STEPS_MAX + WARM_UP_STEPS + 1),
        validation_pixels=pixels[:1],
        validation_labels=labels[:1],
        normalise=lambda images: images.astype(np.float32) / np.float32(255),
        classes=classes,
    )
    times: list[float] = []
    plan = replace(
        float_model_training.training_plan(settings),
        epochs_max=1,
        epochs_head=0,
        unfreeze_every_epochs=0,
        epoch_steps_max=None,
    )
    with contextlib.suppress(StopTraining):
        fit(model, data=data, plan=plan, groups=family.groups(model), loss=_timed(times))
    seen = times[WARM_UP_STEPS:]
    steps = sorted(after - before for before, after in itertools.pairwise(seen))
    return steps[len(steps) // 2] / batch


def _timed(times: list[float]) -> Loss:
    """Make a loss that notes when each step begins, and ends the training in time."""
    from torch.nn import functional as F

    from fettle.training.training_plan import StopTraining

    def loss(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        times.append(time.perf_counter())
        enough = len(times) > WARM_UP_STEPS + 1
        long = times[-1] - times[0] > SECONDS_MAX
        if (enough and long) or len(times) > STEPS_MAX + WARM_UP_STEPS:
            raise StopTraining
        return F.cross_entropy(model(inputs), labels)

    return loss


if __name__ == "__main__":
    asked = json.loads(sys.stdin.read())
    found = measure(Path(asked["tree"]), side_px=asked["side_px"], classes=asked["classes"])
    sys.stdout.write(json.dumps({"image_s": found}) + "\n")
