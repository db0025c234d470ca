"""Report measurements: intervals, metrics, ratios and target rows of `fettle report --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.evaluate_facts import Evidence, ShipVerdict, WithoutVnni
from fettle.facts.quantities import (
    Milliseconds,
    Quantity,
    Share,
    ShareChange,
    SizeBytes,
    Times,
)
from fettle.facts.typed_document import TypedDocument

Samples = Annotated[int, Quantity("sample", low=1)]
Figure = Annotated[float, Quantity("as the key `unit` says")]


@dataclass(frozen=True, slots=True)
class ShareInterval:
    """A share with its 95 % interval."""

    value: Share
    """The measured value."""
    low: Share | None
    """Lower end of the 95 % interval; null where none was taken."""
    high: Share | None
    """Upper end of the 95 % interval; null where none was taken."""
    n: Samples
    """Images behind the value."""


@dataclass(frozen=True, slots=True)
class ShareChangeInterval:
    """A difference of two shares with its 95 % interval; paired, a positive one is a loss."""

    value: ShareChange
    """The measured value."""
    low: ShareChange | None
    """Lower end of the 95 % interval; null where none was taken."""
    high: ShareChange | None
    """Upper end of the 95 % interval; null where none was taken."""
    n: Samples
    """Images behind the value."""


@dataclass(frozen=True, slots=True)
class MillisecondsInterval:
    """A latency with its 95 % interval."""

    value: Milliseconds
    """The measured value."""
    low: Milliseconds | None
    """Lower end of the 95 % interval; null where none was taken."""
    high: Milliseconds | None
    """Upper end of the 95 % interval; null where none was taken."""
    n: Samples
    """Rounds behind the value."""


@dataclass(frozen=True, slots=True)
class TimesInterval:
    """A ratio of two figures with its 95 % interval."""

    value: Times
    """The measured value."""
    low: Times | None
    """Lower end of the 95 % interval; null where none was taken."""
    high: Times | None
    """Upper end of the 95 % interval; null where none was taken."""
    n: Samples
    """Rounds behind the value; 1 where it is exact."""


@dataclass(frozen=True, slots=True)
class ValidationInterval:
    """A share with its 95 % interval, and the split that it was taken on."""

    value: Share
    """The measured value."""
    low: Share | None
    """Lower end of the 95 % interval; null where none was taken."""
    high: Share | None
    """Upper end of the 95 % interval; null where none was taken."""
    n: Samples
    """Images behind the value."""
    split: Literal["validation"] = "validation"
    """The split whose images were scored."""


@dataclass(frozen=True, slots=True)
class MeasuredFigure:
    """A measured value that names its unit."""

    value: Figure
    """The measured value."""
    unit: str
    """Its unit; 1 for a share, x for a ratio."""
    n: Samples
    """Images, rounds or files behind the value."""
    low: Figure | None
    """Lower end of the 95 % interval; null where none was taken."""
    high: Figure | None
    """Upper end of the 95 % interval; null where none was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """A metric of the float model and of the shipped file on the same images."""

    split: str
    """The split whose images were scored."""
    float_: Annotated[ShareInterval | None, Field(alias="float")]
    """The float model's."""
    compressed: ShareInterval | None
    """The shipped file's."""
    drop: ShareChangeInterval | None
    """Float minus compressed, for calibration_error the other way round: a positive one is a loss.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityTable:
    """The budget's metric at the top, all metrics below."""

    metric: str
    """The metric that the budget is put on."""
    split: str
    """The split whose images were scored."""
    float_: Annotated[ShareInterval | None, Field(alias="float")]
    """The float model's."""
    compressed: ShareInterval | None
    """The shipped file's."""
    drop: ShareChangeInterval | None
    """Float minus compressed, for calibration_error the other way round: a positive one is a loss.
    """
    metrics: Mapping[str, MetricRow]
    """accuracy, macro_f1, worst_recall, calibration_error, and recall.CLASS of each class."""
    churn: ShareInterval | None
    """Share of images whose answer differs between the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionRatios:
    """How many times less the shipped file has than the float model."""

    params_ratio: Times | None
    """Parameters, times fewer."""
    macs_ratio: Times | None
    """Multiply-adds for one image, times fewer."""
    size_ratio: Times | None
    """Bytes of the file, times fewer."""
    latency_ratio: Times | None
    """Median latency of one image, times lower."""
    latency_ratio_interval: TimesInterval | None
    """The same with its interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YardstickRow:
    """An fp32 file under ONNX Runtime that every target is held against."""

    accuracy: ShareInterval | None
    """Accuracy on validation images."""
    latency_p50_ms: MillisecondsInterval | None
    """Median latency of one image, in the rounds of the chosen target."""
    size_bytes: SizeBytes | None
    """Size of the file."""


class LatencyRow(TypedDocument):
    """Quantiles of the latency of one image."""

    p50: Milliseconds
    """Median."""
    p95: Milliseconds | None = None
    """95th percentile."""
    p99: Milliseconds | None = None
    """99th percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRow:
    """A figure that a vendor's tool worked out without the hardware."""

    what: str
    """What was estimated."""
    value: Figure
    """The estimate."""
    unit: str
    """Its unit."""
    tool: str
    """The tool that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """One target: its file, and what was measured of it on validation images."""

    target: str
    """The target's name in params.yaml."""
    verdict: ShipVerdict
    """Whether its file may ship; inconclusive, unavailable and compiled do not."""
    evidence: Evidence
    """Whether it was measured on this machine; what was emulated or estimated is never timed."""
    reason: str | None
    """Why it may ship or not, as a sentence."""
    chosen: bool
    """Whether this target's file is the one that ships."""
    size_bytes: SizeBytes | None
    """Size of the file."""
    accuracy: Share | None
    """Accuracy on the split that accuracy_interval names."""
    accuracy_interval: ValidationInterval | None
    """The same with its interval."""
    parity: AnswerParity | None
    """Answers against the source-of-truth model's, on the same images."""
    latency_ms: LatencyRow | None
    """Latency of one image."""
    speedup: TimesInterval | None
    """Over the float model under ONNX Runtime, timed in the same rounds."""
    best_float: str | None
    """The runtime in which the float model is fastest here; what ships has to beat it."""
    kept_float: Sequence[str] | None
    """Layers of a static int8 file that went back to float; null for other files."""
    runtime: str | None
    """The runtime that runs the file."""
    precision: str | None
    """The precision of the file."""
    kept_int8: Sequence[str] | None
    """Layers of a file with int4 weights whose weights stay int8; null for other files."""
    without_vnni: WithoutVnni | None
    """An int8 ONNX as an x86 CPU without VNNI would answer, emulated; null for other files."""
    measures: Mapping[str, MeasuredFigure]
    """Everything else evaluate measured, each with its unit."""
    hardware: str | None = None
    """The hardware that the file is for."""
    drop: ShareChangeInterval | None = None
    """Accuracy of the float model minus this file's, paired; a positive one is a loss."""
    accelerator_share: Share | None = None
    """Share of the operators that the accelerator runs; null where there is no such notion."""
    estimates: Sequence[EstimateRow] = ()
    """A vendor's figures, worked out without the hardware; never a measured latency."""
    next_command: str | None = None
    """What a user who has the hardware runs next; null for what is measured here."""
