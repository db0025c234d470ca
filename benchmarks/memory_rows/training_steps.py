"""Take 50 steps of training on a project's training images, and print the peak memory in MiB.

    python -m benchmarks.memory_rows.training_steps PROJECT

As finetune begins: the splits are read as it reads them, and then the loop trains on the first
images alone.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fettle import lazy_array, params, plugins
from fettle.data import split_reader
from fettle.params_scope import settle
from fettle.recipes import float_model_training
from fettle.recipes.training_setup import threads, training_data
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs
from fettle.training import training_loop

STEPS = 50


def main(project: Path) -> None:
    """Train; the network is the params' own, a rate of 1e-3 stands for `auto`."""
    folders = {name: project / "artifacts" / name for name in ("ingest", "validate")}
    inputs = Inputs(folders, project, project / ".fettle" / "scratch" / "benchmark")
    auto = {"preprocess.mean": 0.5, "preprocess.std": 0.25, "finetune.learning_rate": 1e-3}
    settings = settle(params.load(project / "params.yaml"), auto)
    recorder = MemoryRecorder()
    train = split_reader.images(inputs, settings, "train", recorder=recorder)
    judged = split_reader.images(inputs, settings, "validation", most=1000, recorder=recorder)
    torch.set_num_threads(threads())
    family = plugins.resolve("families", settings.finetune.family, where="finetune.family")
    model = family.build(
        family.Params.model_validate(settings.finetune.options),
        classes=len(train.classes),
        channels=settings.preprocess.channels,
        size_px=settings.preprocess.side_px,
        project=project,
    )
    plan = replace(float_model_training.training_plan(settings), epochs_max=1)
    data = training_data(settings, train=train, validation=judged)
    count = STEPS * plan.batch_images
    short = replace(
        data,
        train_pixels=lazy_array.select(data.train_pixels, slice(0, count)),
        train_labels=data.train_labels[:count],
    )
    training_loop.fit(model, data=short, plan=plan)
    for name, text in recorder.notes.items():
        print(f"{name}: {text}", file=sys.stderr)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
