"""Types of which the sections of params.yaml are made: the strict base, shares, counts, `auto`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]  # counts: what numpy, ONNX and DVC all hold
Options = dict[str, Any]  # type: ignore[explicit-any]  # parsed again by the plug-in's Params
BATCH_IMAGES_MAX = 65_536  # beyond it a machine is not slow but out of memory, after the training
Auto = Literal["auto"]


class Strict(BaseModel):
    """The base of every section and of every plug-in's Params."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def number_or_auto(
    low: float, high: float, *, whole: bool = False, above: bool = False
) -> BeforeValidator:
    """Validate a number from `low` (beyond it where `above`) to `high`, or the word auto.

    One validator for both, so that a wrong value gives one error that names both choices.
    """
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    bounds = f"above {low:g}" if above else f"{low:g}"
    span = f"{bounds} to {high:g}" if high < float("inf") else f"{bounds}"
    kind = "a whole number" if whole else "a number"

    def check(value: object) -> object:
        if value == "auto":
            return value
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or not (low < value if above else low <= value)  # type: ignore[operator] # an int or float
            or not value <= high  # type: ignore[operator] # an int or float
        ):
            raise ValueError(f"either auto, or {kind} {span}")
        return value

    return BeforeValidator(check)


def per_channel(check: Callable[[object], bool], rule: str) -> BeforeValidator:
    """Validate a number, a list of one number a channel, or the word auto."""

    def whole(value: object) -> object:
        levels = value if isinstance(value, list) else [value]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels)
        if value != "auto" and not (levels and numbers and all(check(v) for v in levels)):
            raise ValueError(f"either auto, {rule}, or a list of such numbers, one a channel")
        return value

    return BeforeValidator(whole)
