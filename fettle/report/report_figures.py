"""Report figures, from the facts: inline for the page, or as files for the tracker."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from fettle import manifest
from fettle.facts.compress_facts import LayerChange
from fettle.facts.finetune_facts import CurveEpoch
from fettle.facts.search_document import SearchDocument
from fettle.measure import Measure
from fettle.report import (
    chart_data,
    compression_charts,
    number_format,
    search_chart,
    svg,
    training_charts,
)
from fettle.report.report_values import RECALL, Facts
from fettle.report.tradeoff_chart import Point, tradeoff


def draw(facts: Facts) -> dict[str, str]:
    """Draw every picture that has its facts: {name: inline <svg>}; the others are left out."""
    details = facts.details
    found = {
        **_curves(details.curve.root if details.curve else ()),
        **_layers(details.layers.root if details.layers else ()),
        **_tradeoffs(facts),
        **_compression(facts),
    }
    confusion = details.confusion
    if confusion:
        found["confusion"] = training_charts.confusion(confusion.classes, confusion.counts)
    if facts.stages:
        times = [
            (s.name, s.made_seconds if s.cached else s.seconds, s.cached) for s in facts.stages
        ]
        found["stages"] = training_charts.stage_times(times)
    return found


def figures(facts: Facts, folder: Path) -> list[Path]:
    """Write the pictures as NAME.svg files that stand alone; return their paths, sorted."""
    paths = []
    for name, inline in sorted(draw(facts).items()):
        path = folder / f"{name}.svg"
        manifest.write_text(path, svg.stand_alone(inline) + "\n")
        paths.append(path)
    return paths


def phase_changes(curve: Sequence[CurveEpoch]) -> list[tuple[int, str]]:
    """List the epochs at which training went on to another phase, with its name."""
    return [(row.epoch, row.phase) for before, row in pairwise(curve) if row.phase != before.phase]


def _curves(curve: Sequence[CurveEpoch]) -> dict[str, str]:
    """Draw loss and accuracy over epochs from curve.json."""
    if not curve:
        return {}
    phases = [epoch for epoch, _ in phase_changes(curve)]
    last = curve[-1]
    accuracy = [(float(row.epoch), row.validation_accuracy) for row in curve]
    return {
        "loss": training_charts.curve(
            {
                "training": [(row.epoch, row.train_loss) for row in curve],
                "validation": [(row.epoch, row.validation_loss) for row in curve],
            },
            y_label="loss",
            y_percent=False,
            phases=phases,
            label=f"Loss over {len(curve)} epochs: training {last.train_loss:.3f}, "
            f"validation {last.validation_loss:.3f} at the end",
        ),
        "accuracy": training_charts.curve(
            {"validation": accuracy},
            y_label="accuracy",
            y_percent=True,
            phases=phases,
            label=f"Validation accuracy over {len(curve)} epochs: "
            f"{number_format.percent(last.validation_accuracy)} at the end",
        ),
    }


def _layers(rows: Sequence[LayerChange]) -> dict[str, str]:
    """Draw channels and parameters of each layer before and after, from layers.json."""
    if not rows:
        return {}
    shown = [row for row in rows if row.macs_before] or rows  # normalisation follows its layer
    channels = [(row.layer, row.channels_before, row.channels_after) for row in shown]
    params = [(row.layer, row.params_before, row.params_after) for row in shown]
    return {
        "layer_channels": _bars(channels, what="channels", named="channels"),
        "layer_params": _bars(params, what="params", named="parameters"),
    }


def _bars(bars: Sequence[tuple[str, int, int]], *, what: str, named: str) -> str:
    before, after = sum(bar[1] for bar in bars), sum(bar[2] for bar in bars)
    return training_charts.layers(
        bars,
        named=named,
        label=f"{what} of {len(bars)} layers: {number_format.count(before)} before, "
        f"{number_format.count(after)} after",
    )


def _tradeoffs(facts: Facts) -> dict[str, str]:
    """Draw accuracy against latency and against size, for every target that was measured."""
    by_latency, by_size = [], []
    least = _least(facts)
    for name, kind, accuracy, latency, size_bytes in _files(facts):
        y = _ends(accuracy)
        if latency is not None:
            said = f"{number_format.milliseconds(latency.value)} ms"
            by_latency.append(Point(name=name, kind=kind, x=_ends(latency), y=y, said=said))
        if size_bytes is not None:
            exact = (float(size_bytes),) * 3
            said = number_format.size(size_bytes)
            by_size.append(Point(name=name, kind=kind, x=exact, y=y, said=said))
    found = {}
    if by_latency:
        found["accuracy_latency"] = tradeoff(
            by_latency,
            x_label="median latency of one image, ms (log scale)",
            x_format=lambda value: f"{value:g}",
            label=_spoken("latency", by_latency),
            least=least,
        )
    if by_size:
        found["accuracy_size"] = tradeoff(
            by_size,
            x_label="size of the model file (log scale)",
            x_format=number_format.size_tick,
            label=_spoken("size", by_size),
            least=least,
        )
    return found


def _compression(facts: Facts) -> dict[str, str]:
    """Draw what compression did, from what its stages left."""
    found: dict[str, str | None] = {}
    searched, sensitive = facts.details.search, chart_data.sensitivity(facts)
    if searched:
        found["search"] = search_chart.draw(searched, label=_spoken_search(searched))
    if sensitive and (sensitive.groups or sensitive.blocks):
        found["sensitivity"] = compression_charts.sensitivity(
            sensitive,
            label=f"Rise of the loss when {len(sensitive.groups)} groups lose channels "
            f"or {len(sensitive.blocks)} blocks are removed",
        )
    weights = chart_data.histograms(facts)
    if weights:
        found["weights"] = compression_charts.histograms(
            weights, label=f"Weights of {len(weights)} layers before and after compression"
        )
    found |= _answers(facts)
    spent = facts.details.profile
    if spent and spent.before and spent.after:
        before, after = spent.before, spent.after
        found["operators"] = compression_charts.operators(
            before,
            after,
            names=("float model, ONNX Runtime", str(facts.verdict.chosen)),
            label=f"Time by operator: {number_format.milliseconds(before.ms)} ms before, "
            f"{number_format.milliseconds(after.ms)} ms after, "
            f"{number_format.percent(after.int8_share)} of it in int8",
        )
    return {name: drawn for name, drawn in found.items() if drawn}


def _answers(facts: Facts) -> dict[str, str]:
    """Draw each class's recall before and after, and how honest the confidences are."""
    found = {}
    metrics = facts.quality.metrics if facts.quality else {}
    recalls = [
        (name.removeprefix(RECALL), m.float_.value, m.compressed.value)
        for name, m in metrics.items()
        if name.startswith(RECALL) and m.float_ and m.compressed
    ]
    if recalls:
        lost = sum(after < before for _, before, after in recalls)
        found["classes"] = compression_charts.classes(
            recalls, label=f"Recall of {len(recalls)} classes before and after: {lost} lost some"
        )
    bins = chart_data.reliability(facts)
    if bins:
        found["reliability"] = compression_charts.reliability(
            bins, label=f"Confidence against the share that is right: {' and '.join(bins)}"
        )
    return found


def _spoken_search(doc: SearchDocument) -> str:
    met = "goal met" if doc.goal_met else "goal not met"
    return f"{doc.evaluations} recipes tried, {len(doc.front)} on the front; {met}"


Row = tuple[str, str, Measure, Measure | None, int | None]


def _files(facts: Facts) -> list[Row]:
    """List (name, kind, accuracy, latency, size) of the float model and of each measured target."""
    rows: list[Row] = []
    for name, file in (("float model", facts.baseline), ("compressed, fp32", facts.plain)):
        own = any(t.size_bytes == file.size_bytes and t.accuracy for t in facts.targets)
        if file.accuracy and not own:  # the plain form is a target of its own as a rule
            rows.append((name, "float", file.accuracy, file.latency_p50_ms, file.size_bytes))
    for target in facts.targets:
        if target.accuracy:
            kind = "chosen" if target.chosen else "target"
            latency = (target.latency_ms or {}).get("p50")
            rows.append((target.name, kind, target.accuracy, latency, target.size_bytes))
    return rows


def _least(facts: Facts) -> float | None:
    """Return the accuracy on validation that the budget leaves; None for another metric's."""
    choice = facts.details.choice
    if choice is None or choice.budget.metric != "accuracy" or facts.baseline.accuracy is None:
        return None
    return facts.baseline.accuracy.value - choice.budget.drop_max


def _ends(measure: Measure) -> tuple[float, float, float]:
    low = measure.value if measure.low is None else measure.low
    return measure.value, low, measure.value if measure.high is None else measure.high


def _spoken(cost: str, points: list[Point]) -> str:
    """Say in words what the picture shows, for those who cannot see it."""
    said = "; ".join(f"{p.name} {p.said}, {number_format.percent(p.y[0])}" for p in points)
    return f"Accuracy on validation against {cost}: {said}"
