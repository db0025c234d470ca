"""Offline gate: judge a release before any traffic, by its own report and the champion's.

Results and verdicts are those of the live gates, so they fold and fail closed alike: what is
missing is INCONCLUSIVE and holds. Both releases were scored once on test; where their test sets
differ, that is said. A release does not carry its predictions, so accuracy is compared unpaired:
it stops only what is proved worse. The shadow asks both releases each image, and judges by pairs.
Latency is compared as "times faster than the float model", which each release measured interleaved
on its own machine: a rough guard, the live gate measures the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

from fettle.measure import Measure, MeasureDict
from fettle.rollout.promotion.gate_verdict import GateResult, Verdict
from fettle.rollout.promotion.rollout_plan import RolloutPlan

# The 1 % normal quantile. By the points alone 2 to 13 % of equal challengers were stopped.
WORSE_Z = 2.326


class GateReport(TypedDict):
    """What of a release's gate.json is judged."""

    passed: bool
    failed: NotRequired[list[str]]
    measures: Mapping[str, MeasureDict]


class ValidationReport(TypedDict):
    """What of a release's validation.json is judged."""

    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBundle:
    """What a release brings: its gate.json, validation.json, the bytes of its model folder.

    `signed`: whether its signature was verified, None where nobody looked.
    """

    gate: GateReport
    validation: ValidationReport
    model_bytes: int
    signed: bool | None


def judge(
    challenger: EvidenceBundle, champion: EvidenceBundle | None, plan: RolloutPlan
) -> tuple[GateResult, ...]:
    """Return one result a gate; without a champion only the release's own report is judged."""
    alone = (_report(challenger), _data(challenger), _signature(challenger))
    if champion is None:
        return alone
    return (
        *alone,
        _accuracy(challenger, champion, plan.accuracy_margin),
        _classes(challenger, champion),
        _latency(challenger, champion, plan.latency_p95_ratio),
        _size(challenger, champion, plan.size_ratio_max),
    )


def _report(bundle: EvidenceBundle) -> GateResult:
    failed = bundle.gate.get("failed", [])
    return _result("report", bool(bundle.gate["passed"]), "; ".join(failed) or "every bound holds")


def _data(bundle: EvidenceBundle) -> GateResult:
    passed = bool(bundle.validation["passed"])
    return _result("data", passed, f"data validation {'passed' if passed else 'did not pass'}")


def _signature(bundle: EvidenceBundle) -> GateResult:
    if bundle.signed is None:
        return GateResult(
            name="signature", verdict=Verdict.INCONCLUSIVE, reason="the signature was not verified"
        )
    said = "is verified" if bundle.signed else "does not fit the files"
    return _result("signature", bundle.signed, f"the signature {said}")


def _accuracy(challenger: EvidenceBundle, champion: EvidenceBundle, margin: float) -> GateResult:
    new, old = _measure(challenger, "accuracy"), _measure(champion, "accuracy")
    if new is None or old is None:
        return _missing("accuracy")
    noise = WORSE_Z * math.hypot(*(_standard_error(one) for one in (new, old)))
    passed = new.value >= old.value - margin - noise
    text = f"{new.value:.4f} against {old.value:.4f} on test, margin {margin:g}, chance {noise:.4f}"
    if new.n != old.n:
        text += f" (different test sets: {new.n} and {old.n} images)"
    least = old.value - margin - noise
    return _result("accuracy", passed, text, evidence=new.value, threshold=least)


def _standard_error(share: Measure) -> float:
    """Return that of a share of independent images, half an image away from 0 and 1 (Wilson)."""
    inside = min(max(share.value, 0.5 / share.n), 1 - 0.5 / share.n)
    return math.sqrt(inside * (1 - inside) / share.n)


def _classes(challenger: EvidenceBundle, champion: EvidenceBundle) -> GateResult:
    """Fail where a class is lost, or its recall's interval lies wholly below the champion's."""
    worse = []
    for name in sorted(one for one in champion.gate["measures"] if one.startswith("recall.")):
        old, new = _measure(champion, name), _measure(challenger, name)
        label = name.removeprefix("recall.")
        if new is None:
            worse.append(f"'{label}' is gone")
        elif old is not None and _top(new) < _bottom(old):
            worse.append(f"'{label}' recall {new.value:.3f} against {old.value:.3f}")
    return _result("classes", not worse, "; ".join(worse) or "no class is proved worse")


def _latency(challenger: EvidenceBundle, champion: EvidenceBundle, ratio: float) -> GateResult:
    new, old = _measure(challenger, "latency_ratio"), _measure(champion, "latency_ratio")
    if new is None or old is None:
        return _missing("latency")
    floor = old.value / ratio
    text = f"{new.value:.2f} x faster than its float model, the champion {old.value:.2f} x"
    return _result("latency", _top(new) >= floor, text, evidence=new.value, threshold=floor)


def _size(challenger: EvidenceBundle, champion: EvidenceBundle, ratio: float) -> GateResult:
    limit = champion.model_bytes * ratio
    text = f"{challenger.model_bytes:,} bytes against {champion.model_bytes:,}, limit {ratio:g} x"
    return _result(
        "size",
        challenger.model_bytes <= limit,
        text,
        evidence=float(challenger.model_bytes),
        threshold=limit,
    )


def _measure(bundle: EvidenceBundle, name: str) -> Measure | None:
    found = bundle.gate["measures"].get(name)
    return None if found is None else Measure.from_dict(found)


def _top(measure: Measure) -> float:
    return measure.value if measure.high is None else measure.high


def _bottom(measure: Measure) -> float:
    return measure.value if measure.low is None else measure.low


def _missing(name: str) -> GateResult:
    reason = "one of the two gate reports does not have it"
    return GateResult(name=name, verdict=Verdict.INCONCLUSIVE, reason=reason)


def _result(
    name: str,
    passed: bool,
    reason: str,
    *,
    evidence: float | None = None,
    threshold: float | None = None,
) -> GateResult:
    return GateResult(
        name=name,
        verdict=Verdict.PASS if passed else Verdict.FAIL,
        reason=reason,
        evidence=evidence,
        threshold=threshold,
    )
