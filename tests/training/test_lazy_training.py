"""Training from a file: the same batches, the same probe, the same choices as from memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fettle import lazy_array
from fettle.lazy_array import LazyArray, gather
from fettle.training import fine_tuning, inference, linear_probe
from fettle.training.fine_tuning import FineTuned, FineTuningPlan
from fettle.training.training_loop import fit
from fettle.training.training_plan import TrainingData, TrainingPlan

PLAN = TrainingPlan(epochs_max=2, learning_rate=2e-2, seed=4, batch_images=32)


def in_file(whole: np.ndarray, folder: Path) -> LazyArray[np.generic]:
    """The rows of an array, read on demand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
        found = gather([whole], shape=whole.shape, dtype=whole.dtype, folder=folder, what="rows")
    assert isinstance(found, LazyArray)
    return found


@pytest.fixture
def lazy(data: TrainingData, tmp_path: Path) -> TrainingData:
    """The same data, whose pixels lie in files."""
    return replace(
        data,
        train_pixels=in_file(data.train_pixels[:], tmp_path),
        validation_pixels=in_file(data.validation_pixels[:], tmp_path),
    )


def test_a_training_from_a_file_ends_with_the_same_weights(
    data: TrainingData, lazy: TrainingData, make_model: Callable[[], nn.Sequential]
) -> None:
    ended = []
    for given in (data, lazy):
        model = make_model()
        curve = fit(model, data=given, plan=PLAN).curve
        ended.append((curve, model.state_dict()))
    assert ended[0][0] == ended[1][0]
    for name, value in ended[0][1].items():
        assert torch.equal(value, ended[1][1][name]), name


def test_logits_of_a_file_are_those_of_memory_in_the_model_s_own_mode(
    data: TrainingData, lazy: TrainingData, make_model: Callable[[], nn.Sequential]
) -> None:
    model = make_model().train()
    found = [
        inference.logits(model, given.train_pixels, given.normalise, batch_images=50)
        for given in (data, lazy)
    ]
    np.testing.assert_array_equal(*found)
    assert model.training
    assert not torch.is_inference_mode_enabled()


def test_a_probe_on_chunks_in_a_file_is_the_probe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draw = np.random.default_rng(8)
    labels = draw.integers(0, 3, 500)
    known = (draw.normal(size=(500, 12)) + 0.7 * np.eye(3, 12)[labels]).astype(np.float32)
    known[:, 5] = 7.0  # says nothing
    in_memory = linear_probe.fit(known, labels, classes=3)
    monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    monkeypatch.setattr(lazy_array, "CHUNK_BYTES", 48 * 70)  # 8 chunks
    stored = in_file(known, tmp_path)
    assert len(lazy_array.chunks(stored)) == 8
    found = linear_probe.fit(stored, labels, classes=3, scratch=tmp_path)
    for ours, theirs in zip(found, in_memory, strict=True):
        assert ours.strength == theirs.strength
        torch.testing.assert_close(ours.weight, theirs.weight, atol=2e-3, rtol=0)
        torch.testing.assert_close(ours.bias, theirs.bias, atol=2e-3, rtol=0)
        np.testing.assert_allclose(
            linear_probe.answers(ours, stored), linear_probe.answers(ours, known), atol=1e-5
        )


def test_the_features_of_many_images_lie_in_a_file(
    data: TrainingData,
    make_model: Callable[[], nn.Sequential],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    model = make_model()
    asked = (model, model[-1], data.train_pixels, data.normalise)
    in_memory = linear_probe.features(*asked, scratch=tmp_path)
    monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    stored = linear_probe.features(*asked, scratch=tmp_path)
    assert isinstance(in_memory, np.ndarray)
    assert isinstance(stored, LazyArray)
    np.testing.assert_array_equal(stored[:], in_memory)


def test_fine_tuning_from_files_chooses_and_ends_the_same(
    data: TrainingData,
    lazy: TrainingData,
    make_model: Callable[[], nn.Sequential],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The probe, the mirror test, the trials of rates, the training, the better of both."""

    def tuned(given: TrainingData, scratch: Path) -> tuple[FineTuned, dict[str, torch.Tensor]]:
        model = make_model()
        plan = FineTuningPlan(
            training=PLAN, linear_probe=True, learning_rate="auto", flip_horizontal="auto"
        )
        done = fine_tuning.fine_tune(
            model, model[-1], groups=[[model]], data=given, plan=plan, scratch=scratch
        )
        return done, model.state_dict()

    plain, weights = tuned(data, tmp_path / "memory")
    monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", 0)
    from_files, same = tuned(lazy, tmp_path / "files")
    assert from_files == plain
    for name, value in weights.items():
        assert torch.equal(value, same[name]), name


def test_a_probe_that_is_kept_is_fitted_on_all_images_of_the_files(
    data: TrainingData,
    lazy: TrainingData,
    make_model: Callable[[], nn.Sequential],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    plan = FineTuningPlan(
        training=replace(PLAN, epochs_max=0),
        linear_probe=True,
        learning_rate=1e-3,
        flip_horizontal=False,
    )
    heads = []
    for given, most in ((data, 2**25), (lazy, 0)):
        monkeypatch.setattr(lazy_array, "MEMORY_BYTES_MAX", most)
        model = make_model()
        done = fine_tuning.fine_tune(
            model, model[-1], groups=[[model]], data=given, plan=plan, scratch=tmp_path / str(most)
        )
        assert done.kept == "probe"
        heads.append(model[-1].weight.detach().clone())
    torch.testing.assert_close(heads[0], heads[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("in_files", [False, True])
def test_the_mirror_test_is_shown_mirror_images(in_files: bool, tmp_path: Path) -> None:
    """Left is one class and right the other: mirrored, each is the other."""
    draw = np.random.default_rng(5)
    labels = draw.permutation(np.repeat(np.array([0, 1], dtype=np.int64), 60))
    pixels = draw.integers(0, 90, size=(120, 1, 6, 6), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[0, :, 3 * label : 3 * label + 3] += 100
    kept = in_file(pixels, tmp_path) if in_files else pixels
    data = TrainingData(
        train_pixels=kept,
        train_labels=labels,
        validation_pixels=kept,
        validation_labels=labels,
        normalise=lambda given: given.astype(np.float32) / 255,
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    plan = FineTuningPlan(
        training=replace(PLAN, epochs_max=1),
        linear_probe=True,
        learning_rate=1e-3,
        flip_horizontal="auto",
    )
    done = fine_tuning.fine_tune(
        model, model[-1], groups=[[model]], data=data, plan=plan, scratch=tmp_path / "scratch"
    )
    assert not done.flip_horizontal
    assert done.said[0] == (
        "images are not flipped: mirrored ones are taken for another class (0.0% of 120 mirrored, "
        "100.0% upright)"
    )
