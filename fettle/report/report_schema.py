"""Report schema: the facts of a run as typed values, and as the versioned JSON that CI reads.

`to_json` is a stable interface (schema.json describes it): within "fettle.report/1" keys are added,
never renamed or removed. A value nobody took is null, and `missing` says why, by its path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from fettle.measure import Measure

SCHEMA = "fettle.report/1"
RECALL = "recall."  # before a class's name: the metrics of one class
Json = dict[str, Any]  # Any: a JSON object


@dataclass(frozen=True, slots=True)
class Gap:
    """A piece that is not there: `path` in the JSON, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageFacts:
    """One stage of the last run; `cached` is None when no run said so.

    `seconds` is the time spent in that run, `made_seconds` what making the artefact took, then.
    """

    name: str
    seconds: float | None
    cached: bool | None
    made_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class FailureFacts:
    """A stage that failed, with the text it left."""

    stage: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What the data checks let through: rows are images."""

    passed: bool
    rows: int
    quarantined: int
    by_rule: Mapping[str, int] = field(default_factory=dict)


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
    verdict: Literal["ship", "refused"]
    evidence: Literal["measured", "not measured"]
    reason: str | None
    chosen: bool
    size_bytes: int | None
    accuracy: Measure | None
    parity: Mapping[str, float] | None
    latency_ms: Mapping[str, Measure] | None
    speedup: Measure | None
    best_float: str | None = None  # the runtime in which the float model is fastest
    kept_float: tuple[str, ...] | None = None  # layers that int8 gave back; None: no static int8
    runtime: str | None = None  # None where the export said neither
    precision: str | None = None
    kept_int8: tuple[str, ...] | None = None  # layers that int4 weights gave back; None: no int4
    without_vnni: Json | None = None  # what an x86 CPU without VNNI would answer
    more: Mapping[str, Measure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """The sources of a run: `commit` is None outside git, `source` digests its files."""

    commit: str | None
    dirty: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFacts:
    """What was made of the run; every part None until the flow has published it."""

    bento: str | None = None
    model_version: str | None = None
    run_id: str | None = None
    digest: str | None = None
    git: Git | None = None
    data: str | None = None
    folder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictFacts:
    """Whether the chosen file may be released, and the reasons; passed is None before `verdict`."""

    passed: bool | None
    reasons: tuple[str, ...]
    chosen: str | None
    why: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the report says; `details` holds what only the page shows, as stages wrote it."""

    project: Path
    name: str
    finished: str | None
    verdict: VerdictFacts
    stages: tuple[StageFacts, ...]
    failures: tuple[FailureFacts, ...]
    validation: Validation | None
    quality: Quality | None
    compression: Compression
    baseline: Yardstick  # the float model
    plain: Yardstick  # the compressed model, before any quantization
    targets: tuple[TargetFacts, ...]
    release: ReleaseFacts
    environment: Json
    data: Json
    details: Json
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]


def interval(measure: Measure | None) -> Json | None:
    """Return {value, low, high, n}; the unit is fixed by the key's name."""
    if measure is None:
        return None
    return {"value": measure.value, "low": measure.low, "high": measure.high, "n": measure.n}


def to_json(facts: Facts) -> Json:
    """Return the versioned interface, "fettle.report/1"."""
    return {
        "schema": SCHEMA,
        "name": facts.name,
        "finished": facts.finished,
        "verdict": {**asdict(facts.verdict), "reasons": list(facts.verdict.reasons)},
        "stages": [asdict(stage) for stage in facts.stages],
        "failures": [asdict(failure) for failure in facts.failures],
        "validation": _validation(facts.validation),
        "quality": _quality(facts.quality),
        "compression": _compression(facts.compression),
        "baseline": _yardstick(facts.baseline),
        "plain": _yardstick(facts.plain),
        "targets": [_target(target) for target in facts.targets],
        "recipe": facts.details["recipe"],
        "search": facts.details["search"],
        "profile": facts.details["profile"],
        "release": asdict(facts.release),
        "data": facts.data,
        "environment": facts.environment,
        "missing": [asdict(gap) for gap in facts.gaps],
        "warnings": list(facts.warnings),
    }


def _validation(validation: Validation | None) -> Json | None:
    if validation is None:
        return None
    return {
        "passed": validation.passed,
        "rows": validation.rows,
        "quarantined": validation.quarantined,
        "by_rule": dict(validation.by_rule),
    }


def _metric(metric: Metric) -> Json:
    return {
        "split": metric.split,
        "float": interval(metric.float_),
        "compressed": interval(metric.compressed),
        "drop": interval(metric.drop),
    }


def _quality(quality: Quality | None) -> Json | None:
    if quality is None:
        return None
    metrics = {name: _metric(m) for name, m in sorted(quality.metrics.items())}
    main = {"metric": quality.metric, **_metric(quality.main)}
    return {**main, "metrics": metrics, "churn": interval(quality.churn)}


def _compression(ratios: Compression) -> Json:
    latency = interval(ratios.latency_ratio)
    return {
        "params_ratio": ratios.params_ratio.value if ratios.params_ratio else None,
        "macs_ratio": ratios.macs_ratio.value if ratios.macs_ratio else None,
        "size_ratio": ratios.size_ratio.value if ratios.size_ratio else None,
        "latency_ratio": latency["value"] if latency else None,
        "latency_ratio_interval": latency,
    }


def _yardstick(file: Yardstick) -> Json:
    return {
        "accuracy": interval(file.accuracy),
        "latency_p50_ms": interval(file.latency_p50_ms),
        "size_bytes": file.size_bytes,
    }


def _target(target: TargetFacts) -> Json:
    accuracy = interval(target.accuracy)
    latency = target.latency_ms
    return {
        "target": target.name,
        "verdict": target.verdict,
        "evidence": target.evidence,
        "reason": target.reason,
        "chosen": target.chosen,
        "size_bytes": target.size_bytes,
        "accuracy": accuracy["value"] if accuracy else None,
        "accuracy_interval": {**accuracy, "split": "validation"} if accuracy else None,
        "parity": dict(target.parity) if target.parity else None,
        "latency_ms": {name: m.value for name, m in latency.items()} if latency else None,
        "speedup": interval(target.speedup),
        "best_float": target.best_float,
        "kept_float": None if target.kept_float is None else list(target.kept_float),
        "runtime": target.runtime,
        "precision": target.precision,
        "kept_int8": None if target.kept_int8 is None else list(target.kept_int8),
        "without_vnni": target.without_vnni,
        "measures": {name: m.to_dict() for name, m in sorted(target.more.items())},
    }
