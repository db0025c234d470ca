"""Calibration images: those that say nothing about the data are refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fettle.errors import DataError

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

IMAGES_MIN = 8  # params.yaml's own least; a training split may have fewer


def check(pixels: npt.NDArray[np.uint8], labels: Labels, logits: Floats) -> None:
    """Refuse calibration images [n, C, S, S] that say nothing about the data.

    `logits` [n, classes] are the float model's answers to them. The ranges need no labels: these
    only tell a model that knows the data from one that does not. Raises DataError.
    """
    count = len(pixels)
    flat = pixels.reshape(count, -1)
    known = float((logits.argmax(axis=1) == labels).mean()) if count else 0.0
    if count < IMAGES_MIN:
        _refuse(f"{count} images", f"at least {IMAGES_MIN} are needed")
    if (flat == flat[:1]).all() or (flat.min(axis=1) == flat.max(axis=1)).all():
        _refuse(
            f"{count} images without any difference between or within them",
            "a range can only be found on images that vary",
        )
    if len(np.unique(labels)) < 2:
        _refuse(f"{count} images of one class", "they must come from two classes or more")
    guessed = 1 / logits.shape[1]
    if known <= guessed:
        _refuse(
            f"images of which the float model is right on {known:.0%}",
            f"guessing gets {guessed:.0%}: the labels are wrong, the images are, or the model "
            "learnt nothing",
        )


def _refuse(got: str, rule: str) -> None:
    raise DataError(
        "the calibration images cannot give int8 ranges",
        got=got,
        rule=rule,
        fix="look at the training split (fettle report), or raise export.calibration_images "
        "(params.yaml)",
    )
