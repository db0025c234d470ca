"""fettle.evaluate: the accuracy of a release on labelled images, with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fettle import plugins
from fettle.api import labelled_images
from fettle.api.loaded_release import LoadedRelease, load
from fettle.errors import DataError
from fettle.evaluation import accuracy_statistics
from fettle.measure import Measure

if TYPE_CHECKING:
    from fettle.api.compression_project import CompressedRelease


@dataclass(frozen=True, slots=True)
class ReleaseEvaluation:
    """Accuracy, macro-F1 and recalls, each with n and a 95 % interval.

    `failed` names the images that got no answer, with the reason: they count as wrong.
    """

    n: int
    accuracy: Measure
    macro_f1: Measure
    recall: Mapping[str, Measure]
    failed: tuple[tuple[str, str], ...] = ()


def evaluate(
    release: str | Path | CompressedRelease | LoadedRelease, data: object
) -> ReleaseEvaluation:
    """Evaluate a release on labelled images; data in any form that compress takes.

    Of a folder or table with splits of its own the test images are taken. Raises DataError for a
    label that is no class of the release.
    """
    loaded = release if isinstance(release, LoadedRelease) else load(release)
    try:
        return _evaluate(loaded, data)
    finally:
        if loaded is not release:
            loaded.close()


def _evaluate(loaded: LoadedRelease, data: object) -> ReleaseEvaluation:
    images = list(labelled_images.gather(data, what="data"))
    if any(one.split for one in images):
        images = [one for one in images if one.split == "test"]
        if not images:
            raise DataError(
                "data names splits, and none of them is test",
                rule="of data with splits the test images are judged",
                fix="name the folder of one split, whose class folders are taken as they are",
            )
    place = {label: index for index, label in enumerate(loaded.labels)}
    for one in images:
        if one.label not in place:
            raise DataError(
                f"{one.name} has a label that is no class of the release",
                got=f"'{one.label}'{plugins.suggest(one.label, list(place))}",
                rule=f"its classes are {', '.join(loaded.labels)}",
                fix="rename the class, or take these images out",
            )
    labels = np.array([place[one.label] for one in images], dtype=np.int64)
    # an image without an answer: a class of its own, which no label has
    answered = np.zeros((len(images), len(place) + 1), dtype=np.float32)
    failed: list[tuple[str, str]] = []
    for index, answer in enumerate(loaded.answers(one.image for one in images)):
        if answer.label is None:
            failed.append((images[index].name, str(answer.error)))
        answered[index, len(place) if answer.label is None else place[answer.label]] = 1
    recalls = accuracy_statistics.recall_measures(answered, labels, list(loaded.labels))
    return ReleaseEvaluation(
        n=len(images),
        accuracy=accuracy_statistics.accuracy(answered, labels),
        macro_f1=accuracy_statistics.macro_f1(answered, labels),
        recall=recalls,
        failed=tuple(failed),
    )
