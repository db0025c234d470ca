"""Mirror test: may training images be flipped? Asked of the data, not guessed.

A probe fitted on one half of the images classifies the other half, upright and mirrored. Where a
class is lost more often than it is gained, left and right mean something: letters, digits, arrows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fettle.training import linear_probe
from fettle.training.inference import Floats, Ints

IMAGES_MAX = 4000  # of the training images: hundreds a class, in one more forward pass
# Standard errors (McNemar) by which a class may fall: 2 of 100 classes would at two, by chance.
DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class Mirrored:
    """How mirrored images fare: accuracy of both over `n` images, and the class that falls most.

    `worst` is None where no class falls by more than chance: then flips are allowed.
    """

    upright: float
    mirrored: float
    n: int
    worst: int | None

    @property
    def allowed(self) -> bool:
        """Whether flips change no class's meaning."""
        return self.worst is None


def test(upright: Floats, mirrored: Floats, labels: Ints, *, strength: float) -> Mirrored:
    """Compare features float32 [N, D] of images and of their mirror images, labels [N]."""
    classes = int(labels.max()) + 1
    halves = np.arange(len(labels)) % 2
    right = np.zeros((2, len(labels)), dtype=bool)
    for half in (0, 1):
        known, other = halves != half, halves == half
        probe = linear_probe.fit(
            upright[known], labels[known], classes=classes, strengths=[strength]
        )[0]
        for row, features in enumerate((upright, mirrored)):
            found = linear_probe.answers(probe, features[other]).argmax(axis=1)
            right[row, other] = found == labels[other]
    lost = np.bincount(labels[right[0] & ~right[1]], minlength=classes)
    gained = np.bincount(labels[~right[0] & right[1]], minlength=classes)
    fallen = (lost - gained) / np.sqrt(np.maximum(lost + gained, 1))
    worst = int(fallen.argmax())
    return Mirrored(
        upright=float(right[0].mean()),
        mirrored=float(right[1].mean()),
        n=len(labels),
        worst=worst if fallen[worst] > DEVIATIONS else None,
    )
