from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from fettle.errors import DataError, ModelError
from fettle.quantize import calibration_image_checks, float_fallback
from fettle.quantize.quantizers import calibrated_int8

FIX = (
    " Fix: look at the training split (fettle report), or raise export.calibration_images "
    "(params.yaml)."
)
rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, size=(12, 1, 8, 8)).astype(np.uint8)
LABELS = np.arange(12) % 3
LOGITS = np.eye(3, dtype=np.float32)[LABELS]


def test_sound_calibration_images_pass() -> None:
    calibration_image_checks.check(IMAGES, LABELS, LOGITS)


@pytest.mark.parametrize(
    ("pixels", "labels", "logits", "text"),
    [
        (IMAGES[:7], LABELS[:7], LOGITS[:7], "got 7 images; at least 8 are needed."),
        (
            np.repeat(IMAGES[:1], 12, axis=0),
            LABELS,
            LOGITS,
            "got 12 images without any difference between or within them; a range can only be "
            "found on images that vary.",
        ),
        (
            np.broadcast_to(IMAGES[:, :, :1, :1], IMAGES.shape),
            LABELS,
            LOGITS,
            "got 12 images without any difference between or within them; a range can only be "
            "found on images that vary.",
        ),
        (
            IMAGES,
            np.zeros(12, np.int64),
            LOGITS,
            "got 12 images of one class; they must come from two classes or more.",
        ),
        (
            IMAGES,
            (LABELS + 1) % 3,
            LOGITS,
            "got images of which the float model is right on 0%; guessing gets 33%: the labels are "
            "wrong, the images are, or the model learnt nothing.",
        ),
    ],
    ids=["few", "same", "flat", "one class", "mislabelled"],
)
def test_images_that_say_nothing_are_refused(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    text: str,
) -> None:
    with pytest.raises(DataError) as caught:
        calibration_image_checks.check(pixels, labels, logits)
    assert str(caught.value) == f"the calibration images cannot give int8 ranges: {text}{FIX}"


def test_a_weak_model_of_hard_data_is_calibrated() -> None:
    labels = np.where(np.arange(12) < 5, LABELS, (LABELS + 1) % 3)  # right on 42 %
    calibration_image_checks.check(IMAGES, labels, LOGITS)


def between() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Images halfway between two classes, where a small error changes the answer."""
    first, second = tiny_onnx.images(901, seed=8), tiny_onnx.images(901, seed=9)
    return (first[:-1] + second[1:]) / 2


def tune(
    folder: Path, *, disagreement_max: float, spoil: bool = False
) -> calibrated_int8.CalibratedModel:
    model = tiny_onnx.classifier(folder / "model.onnx", width=8)
    if spoil:
        weight = tiny_onnx.weights(model)["w2"].copy()
        weight[:, 0, 1, 1] = 300 * np.abs(weight).max()
        tiny_onnx.replace_weight(model, "w2", weight)
    return calibrated_int8.apply(
        model,
        folder / "int8.onnx",
        batches=[tiny_onnx.images(48)],
        held_out=between(),
        calibrate="minmax" if spoil else "auto",
        weight_bits=8,
        disagreement_max=disagreement_max,
    )


def test_the_method_with_the_least_error_is_taken(tmp_path: Path) -> None:
    tuned = tune(tmp_path, disagreement_max=1.0)
    assert set(tuned.errors) == {"minmax", "entropy", "percentile"}
    assert tuned.errors[tuned.calibrate] == min(tuned.errors.values())
    assert (tuned.kept_float, tuned.evaluations, tuned.images) == ((), 3, 900)
    assert (tmp_path / "int8.onnx").is_file()


def test_layers_go_back_to_float_until_the_bound_holds(tmp_path: Path) -> None:
    free = tune(tmp_path, disagreement_max=1.0, spoil=True)
    held = tune(tmp_path, disagreement_max=free.disagreement - 1e-9, spoil=True)
    assert free.disagreement > 0.004
    assert held.kept_float
    assert held.disagreement < free.disagreement
    assert sum(held.coverage.left.values()) == len(held.kept_float)


def test_a_bound_that_no_mixture_keeps_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_fallback, "disagreement", lambda *_: 0.25)
    with pytest.raises(ModelError) as caught:
        tune(tmp_path, disagreement_max=0.02)
    assert str(caught.value) == (
        "model.onnx cannot be quantized to int8 within the bound: got 25.0% of 900 answers change, "
        "with up to 2 of 3 layers float; at most 2.0% may (params.yaml: "
        "export.disagreement_max). Fix: raise export.disagreement_max or "
        "export.calibration_images, or drop the int8 targets."
    )
    assert not (tmp_path / "int8.onnx").exists()
