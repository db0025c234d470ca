"""Read one split as arrays: the step every stage after validation shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.data import image_table
from fettle.errors import OurFault
from fettle.params import Params
from fettle.preprocessing import Pixels, Preprocess
from fettle.stage_contract import Inputs


@dataclass(frozen=True, slots=True)
class Images:
    """One split: pixels uint8 [N, C, S, S], labels int64 [N] into `classes`, row ids [N].

    `groups` [N] names what a row must not be parted from, None where nothing.
    """

    pixels: Pixels
    labels: npt.NDArray[np.int64]
    ids: list[str]
    classes: list[str]
    groups: list[str | None]

    def take(self, rows: npt.NDArray[np.int64]) -> Images:
        """Return these rows alone."""
        return Images(
            pixels=self.pixels[rows],
            labels=self.labels[rows],
            ids=[self.ids[row] for row in rows],
            classes=self.classes,
            groups=[self.groups[row] for row in rows],
        )


def preprocess(params: Params) -> Preprocess:
    """Build the preprocessing from its section, in which nothing is `auto` any more."""
    section = params.preprocess
    return Preprocess(
        size_px=section.side_px,
        channels=section.channels,
        mean=_levels(section.mean),
        std=_levels(section.std),
        fit=section.fit,
    )


def _levels(value: float | list[float] | str) -> float | tuple[float, ...]:
    """Return one number, or one a channel; raises OurFault where it is still auto."""
    if isinstance(value, str):
        raise OurFault(f"preprocess.mean or preprocess.std is still {value}")
    return tuple(value) if isinstance(value, list) else value


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
        groups=rows.groups[:end],
    )
