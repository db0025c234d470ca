"""Precision ladder of the targets: what each step down in precision bought and cost, by runtime.

The order is that of fettle/hardware/precisions.py. Each precision is held against the one above it
that was measured in the same runtime; int4 weights are a side step, which int8 is not held against.
A target's own verdict is its gate: one that does not pay is refused, and the next one is tried all
the same, since it is made from the float file too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from fettle.hardware import precisions
from fettle.report import number_format
from fettle.report.report_values import TargetFacts


class Rung(TypedDict):
    """One measured target against the one above it; `bytes` is the size of its file."""

    target: str
    precision: str
    verdict: str
    bytes: str
    bought: str
    cost: str
    churn: str


def rungs(targets: Sequence[TargetFacts]) -> list[Rung]:
    """List the measured targets of each runtime that has two or more, from fp32 down."""
    order = precisions.names()
    measured = [
        target for target in targets if target.evidence == "measured" and target.precision in order
    ]
    found: list[Rung] = []
    for runtime in dict.fromkeys(row.runtime for row in measured):
        ours = [row for row in measured if row.runtime == runtime]
        ours.sort(key=lambda one: order.index(str(one.precision)))
        if len(ours) > 1:
            found += [_rung(our, _above(ours[:index])) for index, our in enumerate(ours)]
    return found


def _above(higher: Sequence[TargetFacts]) -> TargetFacts | None:
    aside = {precision.name for precision in precisions.PRECISIONS if precision.side_step}
    return next((row for row in reversed(higher) if row.precision not in aside), None)


def _rung(row: TargetFacts, above: TargetFacts | None) -> Rung:
    churn = row.more.get("churn")
    return {
        "target": row.name,
        "precision": str(row.precision),
        "verdict": row.verdict,
        "bytes": number_format.DASH
        if row.size_bytes is None
        else number_format.size(row.size_bytes),
        "bought": _bought(row, above) if above else number_format.DASH,
        "cost": _cost(row, above) if above else number_format.DASH,
        "churn": number_format.DASH if churn is None else number_format.percent(churn.value),
    }


def _bought(row: TargetFacts, above: TargetFacts) -> str:
    """Say how many times smaller and faster; each speed is over the float model, same rounds."""
    said = []
    if row.size_bytes and above.size_bytes:
        ratio = above.size_bytes / row.size_bytes
        word = "smaller" if ratio >= 1 else "larger"
        said.append(f"{number_format.ratio(max(ratio, 1 / ratio))}x {word}")
    if row.speedup and above.speedup:
        said.append(f"{number_format.ratio(row.speedup.value / above.speedup.value)}x as fast")
    return ", ".join(said) or number_format.DASH


def _cost(row: TargetFacts, above: TargetFacts) -> str:
    """Say the change of accuracy on validation, in points with a sign; a loss is negative."""
    if row.accuracy is None or above.accuracy is None:
        return number_format.DASH
    change = 100 * (row.accuracy.value - above.accuracy.value)
    return f"{change:+.1f}" if abs(change) >= 0.05 else "0.0"
