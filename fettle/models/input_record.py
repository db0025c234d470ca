"""Input record of a family: what its weights saw, the least side it takes, what its pixels cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    """What a family's network wants as its input; each family's `input_record` gives one.

    `pretrained_px` is the side that its weights were trained at, or that it was designed for; None
    where nobody told. `mean` and `std` are what its weights expect, on the 0 to 1 scale.
    `pretrained`: the weights know images already, and so do the statistics of their BatchNorm.
    `cost` names its row in input_costs.json, None where it has none. `fixed_px` is the only side
    that it takes, `native` whether `mean` and `std` are known of its weights and not just usual.
    """

    pretrained_px: int | None = None
    least_px: int = 16
    mean: float = 0.5
    std: float = 0.5
    native: bool = True
    pretrained: bool = False
    cost: str | None = None
    fixed_px: int | None = None
