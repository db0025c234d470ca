"""Report JSON: the facts of a run in the versioned form that CI reads, "fettle.report/1"."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from fettle.json_values import JsonObject
from fettle.measure import Measure
from fettle.report.report_document import SCHEMA, ReportDocument
from fettle.report.report_measurements import (
    CompressionRatios,
    EstimateRow,
    LatencyRow,
    MeasuredFigure,
    MetricRow,
    MillisecondsInterval,
    QualityTable,
    ShareChangeInterval,
    ShareInterval,
    TargetRow,
    TimesInterval,
    ValidationInterval,
    YardstickRow,
)
from fettle.report.report_values import (
    Compression,
    Facts,
    Metric,
    Quality,
    TargetFacts,
    Yardstick,
)


def to_json(facts: Facts) -> JsonObject:
    """Return the facts as plain JSON; schema.json describes it."""
    adapter = TypeAdapter(ReportDocument)
    # a key that a stage's own file leaves out stays out
    doc: JsonObject = adapter.dump_python(
        document(facts), mode="json", by_alias=True, exclude_unset=True
    )
    return doc


def document(facts: Facts) -> ReportDocument:
    """Give the facts their published form."""
    return ReportDocument(
        schema=SCHEMA,
        name=facts.name,
        finished=facts.finished,
        verdict=facts.verdict,
        stages=facts.stages,
        failures=facts.failures,
        validation=facts.validation,
        quality=_quality(facts.quality) if facts.quality else None,
        compression=_compression(facts.compression),
        baseline=_yardstick(facts.baseline),
        plain=_yardstick(facts.plain),
        targets=[_target(target) for target in facts.targets],
        recipe=facts.details.recipe,
        search=facts.details.search,
        profile=facts.details.profile,
        release=facts.release,
        data=facts.data,
        licences=facts.licences,
        environment=facts.environment,
        missing=facts.gaps,
        warnings=facts.warnings,
    )


def _share(m: Measure | None) -> ShareInterval | None:
    return ShareInterval(m.value, m.low, m.high, m.n) if m else None


def _change(m: Measure | None) -> ShareChangeInterval | None:
    return ShareChangeInterval(m.value, m.low, m.high, m.n) if m else None


def _on_validation(m: Measure | None) -> ValidationInterval | None:
    return ValidationInterval(m.value, m.low, m.high, m.n) if m else None


def _times(m: Measure | None) -> TimesInterval | None:
    return TimesInterval(m.value, m.low, m.high, m.n) if m else None


def _metric(metric: Metric) -> MetricRow:
    return MetricRow(
        split=metric.split,
        float_=_share(metric.float_),
        compressed=_share(metric.compressed),
        drop=_change(metric.drop),
    )


def _quality(quality: Quality) -> QualityTable:
    main = _metric(quality.main)
    return QualityTable(
        metric=quality.metric,
        split=main.split,
        float_=main.float_,
        compressed=main.compressed,
        drop=main.drop,
        metrics={name: _metric(metric) for name, metric in sorted(quality.metrics.items())},
        churn=_share(quality.churn),
    )


def _compression(ratios: Compression) -> CompressionRatios:
    latency = _times(ratios.latency_ratio)
    return CompressionRatios(
        params_ratio=ratios.params_ratio.value if ratios.params_ratio else None,
        macs_ratio=ratios.macs_ratio.value if ratios.macs_ratio else None,
        size_ratio=ratios.size_ratio.value if ratios.size_ratio else None,
        latency_ratio=latency.value if latency else None,
        latency_ratio_interval=latency,
    )


def _yardstick(file: Yardstick) -> YardstickRow:
    p50 = file.latency_p50_ms
    return YardstickRow(
        accuracy=_share(file.accuracy),
        latency_p50_ms=MillisecondsInterval(p50.value, p50.low, p50.high, p50.n) if p50 else None,
        size_bytes=file.size_bytes,
    )


def _latency(quantiles: Mapping[str, Measure] | None) -> LatencyRow | None:
    if not quantiles:
        return None
    return LatencyRow.model_validate({name: m.value for name, m in quantiles.items()})


def _target(target: TargetFacts) -> TargetRow:
    accuracy = target.accuracy
    return TargetRow(
        target=target.name,
        verdict=target.verdict,
        evidence=target.evidence,
        reason=target.reason,
        chosen=target.chosen,
        size_bytes=target.size_bytes,
        accuracy=accuracy.value if accuracy else None,
        accuracy_interval=_on_validation(accuracy),
        parity=target.parity,
        latency_ms=_latency(target.latency_ms),
        speedup=_times(target.speedup),
        best_float=target.best_float,
        kept_float=target.kept_float,
        runtime=target.runtime,
        precision=target.precision,
        kept_int8=target.kept_int8,
        without_vnni=target.without_vnni,
        measures={
            name: MeasuredFigure(m.value, m.unit, m.n, m.low, m.high)
            for name, m in sorted(target.more.items())
        },
        hardware=target.hardware,
        drop=_change(target.more.get("accuracy_drop")),
        accelerator_share=target.accelerator_share,
        estimates=[EstimateRow(**figure.model_dump()) for figure in target.estimates],
        next_command=target.next_command,
    )
