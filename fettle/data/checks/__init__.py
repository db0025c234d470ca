"""One file per check of the data: a check offers `rules(limits)`, a list of Rule, and no code of
Great Expectations.

A check that compares rows with each other also offers `derive(frame)`, which returns new columns
for its rules. Every file here is run; those that begin with "_" run them. A rule is one
expectation on the table of images (one row an image), or on the table of classes (one row a
class, after quarantine).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Failing(StrEnum):
    """What follows when a rule is broken."""

    QUARANTINE = "quarantine"  # the rows that break it are set aside, the rest goes on
    REFUSE = "refuse"  # the stage stops
    WARN = "warn"  # it is shown


class CheckedTable(StrEnum):
    """What a rule looks at."""

    IMAGES = "images"
    CLASSES = "classes"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckLimits:
    """The limits of params.yaml: validate. Shares are from 0 to 1, sides in pixels; None: any."""

    labels: tuple[str, ...] | None
    class_images_min: int
    class_imbalance_max: float | None
    size_px_min: int
    size_px_max: int
    null_max_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One expectation.

    `says` is the rule as a sentence. `expectation` names a class of great_expectations.
    expectations, `arguments` are its own. `reason` is a template over the columns of a row (or
    class) that breaks the rule; `fix` says what to do when the stage stops or warns because of it.
    """

    name: str
    says: str
    expectation: str
    arguments: Mapping[str, object]
    failing: Failing
    reason: str = ""
    fix: str = ""
    table: CheckedTable = CheckedTable.IMAGES
