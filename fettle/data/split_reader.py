"""Read one split as arrays: the step every stage after validation shares.

The pixels of a large split are no array in memory but read like one (fettle/lazy_array.py): in
slices, or by row numbers. `pixels[:]` would bring them all into memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle import lazy_array
from fettle.data import image_table, pixel_store
from fettle.errors import OurFault
from fettle.lazy_array import RowArray
from fettle.params import Params
from fettle.preprocessing import Preprocess
from fettle.recorder import NullRecorder, Recorder
from fettle.stage_contract import Inputs


@dataclass(frozen=True, slots=True)
class Images:
    """One split: pixels uint8 [N, C, S, S], labels int64 [N] into `classes`, row ids [N].

    `groups` [N] names what a row must not be parted from, None where nothing.
    """

    pixels: RowArray[np.uint8]
    labels: npt.NDArray[np.int64]
    ids: list[str]
    classes: list[str]
    groups: list[str | None]

    def take(self, rows: npt.NDArray[np.int64]) -> Images:
        """Return these rows alone."""
        return Images(
            pixels=lazy_array.select(self.pixels, rows),
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


def images(
    inputs: Inputs,
    params: Params,
    split: str,
    *,
    most: int | None = None,
    recorder: Recorder | None = None,
) -> Images:
    """Decode `split` (needs "ingest" and "validate" in READS, "preprocess" in SECTIONS).

    `most` takes the first rows only: ingest's order is already shuffled by the seed. The recorder
    is told where the pixels of a large split lie, and how far they are decoded.
    """
    rows = image_table.read_rows(inputs["ingest"], inputs["validate"], split).first(most)
    table, told = inputs["ingest"] / image_table.IMAGES, recorder or NullRecorder()
    encoded = pixel_store.EncodedSplit(
        name=split,
        count=len(rows.ids),
        encoded_bytes=image_table.encoded_bytes(table, len(rows.ids)),
        stream=lambda: image_table.read_encoded(table, rows.places),
    )
    return Images(
        pixels=pixel_store.decode(
            encoded,
            preprocess(params),
            folder=inputs.scratch,
            say=lambda text: told.note(f"{split}_pixels", text),
            progress=lambda text: told.progress(0.0, text),
        ),
        labels=np.asarray(rows.labels, dtype=np.int64),
        ids=rows.ids,
        classes=rows.classes,
        groups=rows.groups,
    )
