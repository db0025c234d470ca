"""Report verification: report.json's figures against the artefacts that a release carries.

No signature is of the report: it is made again by every run. What it tells of a release must be
what the release's own manifests say, which are derived again first (release_verification.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

from fettle.json_values import JsonObject
from fettle.measure import Measure
from fettle.params_schema import METRICS
from fettle.release.released_run import ReleasedRun

PART = "report"
BOUNDS = ("value", "low", "high", "n")
RATIOS = ("params_ratio", "macs_ratio", "size_ratio", "latency_ratio")


class Compares(Protocol):
    """Takes a part, a name, what is stated and what is derived."""

    def __call__(self, part: str, name: str, stated: object, derived: object) -> None: ...


def check(same: Compares, report: JsonObject, run: ReleasedRun) -> None:
    """Compare every quality, size, speed and gate figure of report.json."""
    verdict, measures = _object(report, "verdict"), run.verdict.measures
    same(PART, "report.json verdict.passed", verdict.get("passed"), run.verdict.facts.passed)
    same(
        PART, "report.json verdict.reasons", verdict.get("reasons"), list(run.verdict.facts.reasons)
    )
    same(PART, "report.json verdict.chosen", verdict.get("chosen"), run.choice.target)
    same(PART, "report.json verdict.why", verdict.get("why"), run.choice.why)
    quality = _object(report, "quality")
    shown = _object(quality, "metrics")
    for name in METRICS:
        for key, prefix, suffix in (
            ("float", "float_", ""),
            ("compressed", "", ""),
            ("drop", "", "_drop"),
        ):
            measure = measures.get(f"{prefix}{name}{suffix}")
            row = _object(shown, name).get(key)
            _interval(same, f"report.json quality.metrics.{name}.{key}", row, measure)
            if name == quality.get("metric"):
                _interval(same, f"report.json quality.{key}", quality.get(key), measure)
    _interval(same, "report.json quality.churn", quality.get("churn"), measures.get("churn"))
    compression = _object(report, "compression")
    for ratio in RATIOS:
        derived = measures[ratio].value if ratio in measures else None
        same(PART, f"report.json compression.{ratio}", compression.get(ratio), derived)
    rows = {str(row.get("target")): row for row in cast(list[JsonObject], report["targets"])}
    same(PART, "report.json targets", sorted(rows), sorted(run.evaluated))
    for target, sealed in run.evaluated.items():
        row, place = rows.get(target, {}), f"report.json targets[{target}]"
        same(PART, f"{place}.size_bytes", row.get("size_bytes"), sealed.facts.size_bytes)
        same(PART, f"{place}.verdict", row.get("verdict"), sealed.facts.verdict)
        accuracy = sealed.measures.get("accuracy")
        same(PART, f"{place}.accuracy", row.get("accuracy"), accuracy.value if accuracy else None)
        _interval(same, f"{place}.accuracy_interval", row.get("accuracy_interval"), accuracy)
        _interval(same, f"{place}.speedup", row.get("speedup"), sealed.measures.get("speedup"))
        for figure, given in _object(row, "measures").items():
            _interval(same, f"{place}.measures.{figure}", given, sealed.measures.get(figure))


def _interval(same: Compares, name: str, stated: object, derived: Measure | None) -> None:
    if derived is None or not isinstance(stated, Mapping):
        same(PART, name, stated, None if derived is None else derived.to_dict())
        return
    wanted: Mapping[str, object] = dict(derived.to_dict())
    for key in BOUNDS:
        same(PART, f"{name}.{key}", stated.get(key), wanted[key])


def _object(doc: Mapping[str, object], key: str) -> JsonObject:
    """Return the object under a key; empty where there is none."""
    found = doc.get(key)
    return cast(JsonObject, found) if isinstance(found, Mapping) else {}
