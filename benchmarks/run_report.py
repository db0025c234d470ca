"""Run report of the line as benchmarks read it: of "fettle.report/1" what becomes rows.

The whole of it is described by fettle/report/schema.json.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)  # other keys are the report's own


class Interval(_Part):
    """A measured value; the unit is fixed by the key's name."""

    value: float
    low: float | None
    high: float | None
    n: int


class TestQuality(_Part):
    """Accuracy on the test split of the float and the shipped model, and the paired drop."""

    float_: Interval = Field(alias="float")
    compressed: Interval
    drop: Interval


class Ratios(_Part):
    """How many times less the shipped file has; None where it was not measured."""

    params_ratio: float | None
    latency_ratio_interval: Interval | None


class RunReport(_Part):
    """What a finished run says of its release."""

    quality: TestQuality
    compression: Ratios


class StageTiming(_Part):
    """How long the flow waited for a stage."""

    name: str
    seconds: float


class LastRun(_Part):
    """The stages of the last run: .fettle/last.json."""

    stages: tuple[StageTiming, ...]


class StageRecord(_Part):
    """What a stage's process noted of itself: records/STAGE.json."""

    process_seconds: float
    peak_memory_bytes: int
