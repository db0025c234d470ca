"""The stages that train say how long that still takes, while an epoch runs and at its end."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import compress_stage
import pytest
from compress_stage import make_inputs, settings

from fettle.data import split_reader
from fettle.models.families import small_cnn
from fettle.recipes import float_model_training, recipe_runner, remaining_time
from fettle.recipes.float_model_training import FloatModelJob
from fettle.recipes.trial_watch import TrialWatch
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs

LEFT = r", (\d+ s|\d+ min) left"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("project"), epochs=1)


@pytest.fixture(autouse=True)
def _said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """This network learns in milliseconds: what waits for seconds does not."""
    monkeypatch.setattr(remaining_time, "SECONDS_MIN", 0.0)
    monkeypatch.setattr(remaining_time, "EVERY_S", 0.0)


def test_fine_tuning_says_what_is_left(inputs: Inputs, tmp_path: Path) -> None:
    params = settings("finetune.epochs_max=10", "finetune.patience_epochs=10")
    recorder = MemoryRecorder()
    job = FloatModelJob(
        params=params,
        family=small_cnn,
        train=split_reader.images(inputs, params, "train"),
        validation=split_reader.images(inputs, params, "validation"),
        scratch=tmp_path,
        recorder=recorder,
    )
    model = small_cnn.build(
        small_cnn.Params(width=8, depth=1, blocks=2),
        classes=3, channels=1, size_px=12, project=Path(),
    )  # fmt: skip
    float_model_training.train(job, model, float_model_training.training_plan(params))
    texts = [text for _, text in recorder.progresses]
    # three steps an epoch: the twenty-first ends the seventh; what was said before knows no time
    assert texts[0].startswith("epoch 1 of at most 10 (head): validation accuracy ")
    assert not [text for text in texts[:6] if "left" in text]
    assert re.fullmatch(f"epoch 7 of at most 10{LEFT}", texts[6])
    assert re.fullmatch(rf"epoch 7 of at most 10 \(\w+\): validation accuracy \S+{LEFT}", texts[7])
    fractions = [fraction for fraction, _ in recorder.progresses]
    assert fractions == sorted(fractions)


def test_a_trial_says_what_is_left_of_it_and_of_the_search(inputs: Inputs, tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    job = replace(
        compress_stage.job(
            replace(inputs, scratch=tmp_path),
            settings("compress.recipe=[{use: distil, epochs: 10}]"),
            recorder,
        ),
        trial=2,
        trials=8,
        watch=TrialWatch(search_left_s=lambda: 540.0),
    )
    recipe_runner.run_recipe(job)
    texts = [text for _, text in recorder.progresses]
    assert texts[0] == "trial 3 of at most 8: distil, distil: epoch 1 of 10"
    assert re.fullmatch(
        rf"trial 3 of at most 8: distil, distil: epoch 10 of 10{LEFT}; the search ends in 9 min at "
        "most",
        texts[-1],
    )
    alone = MemoryRecorder()
    recipe_runner.run_recipe(
        replace(job, trial=0, trials=1, recorder=alone, scratch=tmp_path / "alone")
    )
    assert re.fullmatch(f"distil, distil: epoch 10 of 10{LEFT}", alone.progresses[-1][1])
