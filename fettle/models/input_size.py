"""Input size by rule: the images' own sizes, the family's record, and a table of what pixels cost.

The same images, family and table give the same side: nothing is timed. The rule: no more pixels
than the images have or the weights saw; of those, the most that cost no more than
efficientnet_lite 0 does at 128 px; but photos keep 96 px, below which details go.

Where the numbers come from: fine-tuning efficientnet_lite 0 for 8 epochs on 3,068 photos took 10.5
minutes at 128 px on two cores, and a first run is to end within the hour; 96 px felt right.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from fettle.models.input_record import InputRecord

COSTS = Path(__file__).with_name("input_costs.json")
STEP_PX = 16  # a network halves its side four or five times: multiples lose no border
# A side may go this far beyond the images' own: 120 px take 128, where 112 would lose pixels.
ENLARGED_MAX = 1.1
DESIGNED_PX = 224  # where a network does not say what it was made for
SIDES_MAX_PX = 1024  # the most that preprocess.size_px takes


class Affordable(BaseModel):
    """The most that a side may cost, in images of efficientnet_lite 0 at `side_px`."""

    side_px: int
    cost: float


class Training(BaseModel):
    """What training an image of cost 1 takes one core (AVX-512, seconds), and what it gained once.

    Measured on `seen`: 256 s of the processor for 8 epochs of 3,068 images at 64 px, cost 1/4.
    """

    seconds: float
    gain_points: float
    seen: str


class CostTable(BaseModel):
    """input_costs.json: multiply-accumulates a pixel, by the side from which they hold."""

    about: str
    affordable: Affordable
    photo_px: int
    training: Training
    costs: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class InputSize:
    """The side, and in a few words what decided it."""

    size_px: int
    reason: str


def choose(shorter_px: Sequence[int], record: InputRecord) -> InputSize:
    """Choose the side of the model's input for images whose shorter sides are `shorter_px`."""
    if record.fixed_px is not None:
        return InputSize(record.fixed_px, "the only side that the model takes")
    median = round(statistics.median_low(shorter_px))
    designed = record.pretrained_px or DESIGNED_PX
    shown = f"half of the images have {median:,} px or more on their shorter side"
    cap = min(round(median * ENLARGED_MAX), designed, SIDES_MAX_PX)
    if cap < record.least_px:
        return InputSize(record.least_px, f"{shown}; the family takes {record.least_px} at least")
    table = CostTable.model_validate_json(COSTS.read_text())
    lowest = -(-record.least_px // STEP_PX) * STEP_PX
    sides = list(range(lowest, cap + 1, STEP_PX)) or [record.least_px]
    costs = {side: relative_cost(side, record, table) for side in sides}
    affordable = [side for side in sides if costs[side] <= table.affordable.cost]
    photo = table.photo_px
    if sides[-1] < photo:
        side, why = sides[-1], "small images keep their pixels"
    elif affordable and affordable[-1] >= photo:
        side = affordable[-1]
        why = f"{side} cost {costs[side]:.2g} times efficientnet_lite 0 at 128 px"
        if side == sides[-1]:
            why = f"the family was made for {designed}" if designed <= side else "no more are there"
    else:
        side = min((s for s in sides if s >= photo), key=lambda s: (costs[s], -s))
        why = f"{photo} are the least for photos"
    if side < sides[-1]:
        why += f", {sides[-1]} would cost {costs[sides[-1]]:.2g}"
    return InputSize(side, f"{shown}; {why}")


def relative_cost(side: int, record: InputRecord, table: CostTable) -> float:
    """Cost of an image of `side` pixels: 1 is efficientnet_lite 0 at the affordable side.

    A network without a row counts as efficientnet_lite 0.
    """
    rows = table.costs[record.cost or "efficientnet_lite/0"]
    start = max(int(px) for px in rows if int(px) <= side)
    return rows[str(start)] * side**2 / table.affordable.side_px**2
