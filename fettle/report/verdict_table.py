"""Verdict table: every target, timed here or not, by one gate; with what its owner runs next."""

from __future__ import annotations

from dataclasses import dataclass

from fettle.facts.evaluate_facts import EstimatedFigure
from fettle.measure import Measure
from fettle.report import number_format
from fettle.report.report_values import Facts, TargetFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """A target's cells, as text; `speed` is a measured latency or a vendor's estimate, named."""

    target: str
    size: str
    parity: str
    accuracy: str
    drop: str
    speed: str
    accelerator: str
    evidence: str
    verdict: str
    reason: str
    next_command: str


def untimed(facts: Facts) -> list[TargetFacts]:
    """List the targets that are never timed here, whatever became of them."""
    return [target for target in facts.targets if target.next_command]


def timed(facts: Facts) -> list[TargetFacts]:
    """List the targets that are timed here, or would be."""
    return [target for target in facts.targets if not target.next_command]


def rows(facts: Facts) -> list[VerdictRow]:
    """Return every target's row; none where all of them are timed here: their own table says it."""
    return [row(target) for target in facts.targets] if untimed(facts) else []


def row(target: TargetFacts) -> VerdictRow:
    """Return a target's cells."""
    return VerdictRow(
        target=target.name,
        size=number_format.DASH
        if target.size_bytes is None
        else number_format.size(target.size_bytes),
        parity=number_format.percent(target.parity.top1) if target.parity else number_format.DASH,
        accuracy=number_format.percent_interval(target.accuracy),
        drop=number_format.points_interval(target.more.get("accuracy_drop")),
        speed=speed(target),
        accelerator=number_format.DASH
        if target.accelerator_share is None
        else number_format.percent(target.accelerator_share),
        evidence=target.evidence,
        verdict="chosen" if target.chosen and target.verdict == "ship" else target.verdict,
        reason=target.reason or "",
        next_command=target.next_command or "",
    )


def speed(target: TargetFacts) -> str:
    """Say the measured latency, or what a vendor's tool estimates; the word tells which it is."""
    p50: Measure | None = (target.latency_ms or {}).get("p50")
    if p50:
        return f"{number_format.milliseconds(p50.value)} ms"
    if target.estimates:
        return "estimate: " + ", ".join(map(figure, target.estimates))
    return number_format.NOT_MEASURED


def figure(estimate: EstimatedFigure) -> str:
    """Say one figure with its unit and the tool that worked it out."""
    value = f"{estimate.value:,.0f}" if estimate.value >= 1000 else f"{estimate.value:.4g}"
    unit = "" if estimate.unit in ("1", estimate.what) else f" {estimate.unit}"
    return f"{estimate.what} {value}{unit} ({estimate.tool})"


def note(target: TargetFacts) -> str:
    """Say in a line why a target that is not timed stands as it does, and what to run next."""
    said = [target.reason or ""]
    if target.accelerator_share is not None:
        said.append(
            f"{number_format.percent(target.accelerator_share)} of its operators on the accelerator"
        )
    if target.estimates:
        said.append(speed(target))
    if target.next_command:
        said.append(f"next: {target.next_command}")
    return f"{target.name}: " + "; ".join(part for part in said if part)
