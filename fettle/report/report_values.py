"""Report schema: the facts of a run as typed values, with each Measure whole, for page and tables.

Their form as JSON is in report_document.py; `to_json` in report_json.py goes from here to there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fettle.facts.answer_parity import AnswerParity
from fettle.facts.compress_facts import LayerTable
from fettle.facts.evaluate_facts import (
    EstimatedFigure,
    Evidence,
    ProfileDocument,
    ShipVerdict,
    WithoutVnni,
)
from fettle.facts.finetune_facts import TrainingCurve
from fettle.facts.search_document import SearchDocument
from fettle.facts.select_facts import ChoiceDocument
from fettle.facts.typed_document import Options
from fettle.facts.validate_facts import ValidationDocument
from fettle.facts.verdict_facts import ConfusionDocument
from fettle.measure import Measure
from fettle.report.report_document import (
    DataSource,
    FailureFacts,
    Gap,
    GateVerdict,
    IngestedData,
    ReleaseSection,
    RunEnvironment,
    StageFacts,
    Validation,
)

RECALL = "recall."  # before a class's name: the metrics of one class


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric of the float model and of the shipped file on one split; drop is paired."""

    name: str
    split: str
    float_: Measure | None
    compressed: Measure | None
    drop: Measure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The budget's metric first, all of them below."""

    metric: str
    metrics: Mapping[str, Metric]
    churn: Measure | None  # share of images whose class differs between the two

    @property
    def main(self) -> Metric:
        """The metric that the budget is put on."""
        return self.metrics[self.metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compression:
    """How many times smaller the shipped file is than the float model; unit "x"."""

    params_ratio: Measure | None = None
    macs_ratio: Measure | None = None
    size_ratio: Measure | None = None
    latency_ratio: Measure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """An fp32 file under ONNX Runtime that every target is held against; accuracy on validation."""

    accuracy: Measure | None = None
    latency_p50_ms: Measure | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """One row of the table of targets; accuracy is on validation."""

    name: str
    verdict: ShipVerdict
    evidence: Evidence
    reason: str | None
    chosen: bool
    size_bytes: int | None
    accuracy: Measure | None
    parity: AnswerParity | None
    latency_ms: Mapping[str, Measure] | None
    speedup: Measure | None
    best_float: str | None = None  # the runtime in which the float model is fastest
    kept_float: tuple[str, ...] | None = None  # layers that int8 gave back; None: no static int8
    runtime: str | None = None  # None where the export said neither
    precision: str | None = None
    kept_int8: tuple[str, ...] | None = None  # layers that int4 weights gave back; None: no int4
    without_vnni: WithoutVnni | None = None
    hardware: str | None = None
    accelerator_share: float | None = None
    estimates: tuple[EstimatedFigure, ...] = ()
    next_command: str | None = None  # of what is not timed here
    more: Mapping[str, Measure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFacts:
    """What a step of the recipe left, the float model first; accuracy on validation."""

    use: str
    params: int | float | None
    macs: int | float | None
    validation_accuracy: float | None
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)  # {layer: why}


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """The files of stages that the page draws; None for what a stage did not write.

    `absent` says why, of each stage that left nothing.
    """

    absent: Mapping[str, str]
    curve: TrainingCurve | None
    layers: LayerTable | None
    confusion: ConfusionDocument | None
    checks: ValidationDocument | None
    choice: ChoiceDocument | None
    steps: tuple[StepFacts, ...]
    search: SearchDocument | None
    recipe: tuple[Options, ...] | None
    profile: ProfileDocument | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the report says; `details` holds what stages wrote into files of their own."""

    project: Path
    name: str
    finished: str | None
    verdict: GateVerdict
    stages: tuple[StageFacts, ...]
    failures: tuple[FailureFacts, ...]
    validation: Validation | None
    quality: Quality | None
    compression: Compression
    baseline: Yardstick  # the float model
    plain: Yardstick  # the compressed model, before any quantization
    targets: tuple[TargetFacts, ...]
    release: ReleaseSection
    environment: RunEnvironment
    data: IngestedData | DataSource
    licences: Mapping[str, str | None]
    details: Details
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]
