"""Read one split as arrays: the step every stage after validation shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.data import image_table
from fettle.params import Params
from fettle.preprocessing import Pixels, Preprocess
from fettle.stage_contract import Inputs


@dataclass(frozen=True, slots=True)
class Images:
    """One split: pixels uint8 [N, C, S, S], labels int64 [N] into `classes`, row ids [N]."""

    pixels: Pixels
    labels: npt.NDArray[np.int64]
    ids: list[str]
    classes: list[str]


def preprocess(params: Params) -> Preprocess:
    """Build the preprocessing from its section."""
    return Preprocess(**params.preprocess.model_dump())


def images(inputs: Inputs, params: Params, split: str, *, most: int | None = None) -> Images:
    """Decode `split` (needs "ingest" and "validate" in READS, "preprocess" in SECTIONS).

    `most` takes the first rows only: ingest's order is already shuffled by the seed.
    """
    rows = image_table.read_split(inputs["ingest"], inputs["validate"], split)
    end = len(rows.ids) if most is None else most
    return Images(
        pixels=preprocess(params).batch(rows.encoded[:end]),
        labels=np.asarray(rows.labels[:end], dtype=np.int64),
        ids=rows.ids[:end],
        classes=rows.classes,
    )
