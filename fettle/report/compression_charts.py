"""Compression charts: weights, sensitivity, operators, classes, confidence; all as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fettle.facts.compress_facts import SensitivityDocument
from fettle.facts.evaluate_facts import KernelTimes
from fettle.report import svg
from fettle.report.chart_data import Bin, Histogram
from fettle.report.number_format import count, milliseconds, percent, percent_bare

HALF_PX, WHOLE_PX = 520, 1080
COLUMNS, CELL_PX, CELL_HEIGHT_PX = 6, 180, 92
ROWS_MAX = 30  # of groups or classes: beyond it a picture no longer fits a screen
# Kernels that do the same work, by the names of ONNX Runtime and OpenVINO, in one colour each.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "convolution": ("Conv", "FusedConv", "QLinearConv", "Convolution", "GroupConvolution"),
    "linear": (
        "Gemm",
        "FusedGemm",
        "MatMul",
        "QGemm",
        "QLinearMatMul",
        "FullyConnected",
        "FullyConnectedQuantizedLegacy",
    ),
    "addition": ("Add", "QLinearAdd"),
    "reorder, quantize": (
        "ReorderInput",
        "ReorderOutput",
        "Reorder",
        "Transpose",
        "QuantizeLinear",
        "DequantizeLinear",
        "FakeQuantize",
    ),
}
OTHER = "other"
PALE, SOLID = "fill-opacity:0.28", "fill-opacity:0.9"


def histograms(found: Sequence[Histogram], *, label: str) -> str:
    """Draw one small picture a layer: before as a pale area, after as a line."""
    body = []
    for index, series in enumerate(found):
        left = (index % COLUMNS) * CELL_PX + 4
        top = (index // COLUMNS) * CELL_HEIGHT_PX
        floor, width = top + CELL_HEIGHT_PX - 14, CELL_PX - 18
        tallest = max([*series.before, *(series.after or ())]) or 1.0
        unit = (CELL_HEIGHT_PX - 36) / tallest
        step = width / len(series.before)
        area = _steps(series.before, left=left, floor=floor, step=step, unit=unit)
        ink = svg.colour(0)
        body.append(svg.polyline(area, style=f"fill:{ink};{PALE};stroke:none"))
        if series.after is not None:
            line = _steps(series.after, left=left, floor=floor, step=step, unit=unit)
            body.append(svg.polyline(line, style=f"stroke:{svg.colour(1)};stroke-width:1.4"))
        body.append(svg.line(left, floor, left + width, floor, style=svg.AXIS))
        body.append(svg.text(left, top + 12, svg.shorten(series.layer, 25), size_px=11))
        body.append(svg.text(left, floor + 11, f"-{series.edge:.2g}", size_px=9, style=svg.QUIET))
        ends = f"{series.edge:.2g}" if series.after is not None else f"{series.edge:.2g}; removed"
        body.append(
            svg.text(left + width, floor + 11, ends, anchor="end", size_px=9, style=svg.QUIET)
        )
        tip = f"{series.layer}: {count(series.counts[0])} → {count(series.counts[1])} weights"
        clear = "fill:currentColor;fill-opacity:0"
        body.append(svg.rect(left, top, width, CELL_HEIGHT_PX - 4, style=clear, title=tip))
    rows = math.ceil(len(found) / COLUMNS)
    return svg.picture(WHOLE_PX, rows * CELL_HEIGHT_PX + 4, label=label, body=body)


def _steps(
    shares: Sequence[float], *, left: float, floor: float, step: float, unit: float
) -> list[tuple[float, float]]:
    path = [(left, floor)]
    for index, share in enumerate(shares):
        path += [(left + index * step, floor - share * unit)]
        path += [(left + (index + 1) * step, floor - share * unit)]
    return [*path, (left + len(shares) * step, floor)]


def sensitivity(doc: SensitivityDocument, *, label: str) -> str:
    """Draw how much the loss rises: a bar a group at each share kept, a bar a block removed."""
    rows: list[tuple[str, Sequence[tuple[float, float]]]] = [
        *((f"{block.name} removed", [(0.0, block.loss_increase)]) for block in doc.blocks),
        *((group.name, group.losses) for group in doc.groups),
    ]
    rows.sort(key=lambda row: -max((rise for _, rise in row[1]), default=0.0))
    shown = rows[:ROWS_MAX]
    names = [svg.shorten(name, 34) for name, _ in shown]
    left = max(svg.text_width_px(name) for name in names) + 14
    highest = max(max((rise for _, rise in pairs), default=0.0) for _, pairs in shown)
    x = svg.Scale(low=0, high=max(highest, 1e-6), start=left, end=WHOLE_PX - 90)
    body, height = [], 20
    for index, (name, pairs) in enumerate(shown):
        top = index * height + 4
        body.append(svg.text(left - 8, top + 12, names[index], anchor="end"))
        for place, (share, rise) in enumerate(sorted(pairs, key=lambda pair: -pair[1])):
            opacity = 0.25 + 0.65 * (place + 1) / len(pairs)
            ink = svg.colour(1) if share == 0 else svg.colour(0)
            what = "removed" if share == 0 else f"{percent_bare(share)} % of its channels kept"
            width = max(x(max(rise, 0)) - left, 1)
            body.append(
                svg.rect(left, top + 2, width, height - 8,
                         style=f"fill:{ink};fill-opacity:{opacity:.2f}",
                         title=f"{name}, {what}: loss {rise:+.3f} nats an image")
            )  # fmt: skip
        worst = max((rise for _, rise in pairs), default=0.0)
        end = x(max(worst, 0)) + 6
        body.append(svg.text(end, top + 12, f"+{worst:.2g}", size_px=10, style=svg.QUIET))
    return svg.picture(WHOLE_PX, len(shown) * height + 8, label=label, body=body)


def operators(
    before: KernelTimes, after: KernelTimes, *, names: tuple[str, str], label: str
) -> str:
    """Draw where the time goes: one bar a file, split by kind of kernel, on one scale of ms."""
    inks = {family: svg.colour(at) for at, family in enumerate([*FAMILIES, OTHER])}
    left = max(svg.text_width_px(name) for name in names) + 14
    x = svg.Scale(low=0, high=max(before.ms, after.ms), start=left, end=WHOLE_PX - 90)
    body, height = [], 46
    for index, (name, doc) in enumerate(zip(names, (before, after), strict=True)):
        top, spent = index * height + 6, 0.0
        body.append(svg.text(left - 8, top + 20, name, anchor="end"))
        for family, ink in inks.items():
            kinds = [kind for kind in doc.kinds if _family(kind.kind) == family]
            if not kinds:
                continue
            start, spent = spent, spent + sum(kind.ms for kind in kinds)
            tip = f"{family}, {percent((spent - start) / doc.ms)} of the time: " + ", ".join(
                f"{kind.kind} {milliseconds(kind.ms)} ms in {kind.kernels}" for kind in kinds
            )
            style = f"fill:{ink};{SOLID};stroke:var(--paper, #ffffff);stroke-width:1"
            width = x(spent) - x(start)
            body.append(svg.rect(x(start), top, width, height - 16, style=style, title=tip))
        end = x(spent) + 6
        said = f"{milliseconds(doc.ms)} ms"
        body.append(svg.text(end, top + 20, said, style=svg.QUIET))
    seen = {_family(kind.kind) for doc in (before, after) for kind in doc.kinds}
    body += _legend(
        {name: ink for name, ink in inks.items() if name in seen}, top=2 * height + 14, left=left
    )
    return svg.picture(WHOLE_PX, 2 * height + 26, label=label, body=body)


def _family(kind: str) -> str:
    return next((family for family, kinds in FAMILIES.items() if kind in kinds), OTHER)


def _legend(inks: Mapping[str, str], *, top: float, left: float) -> list[str]:
    body, at = [], left
    for name, ink in inks.items():
        body.append(svg.rect(at, top - 9, 10, 10, style=f"fill:{ink};{SOLID}"))
        body.append(svg.text(at + 14, top, name, size_px=11))
        at += svg.text_width_px(name, 11) + 34
    return body


def classes(rows: Sequence[tuple[str, float, float]], *, label: str) -> str:
    """Draw each class's recall before (ring) and after (disc), the worst change first."""
    shown = sorted(rows, key=lambda row: (row[2] - row[1], row[0]))[:ROWS_MAX]
    names = [svg.shorten(name, 22) for name, _, _ in shown]
    left = max(svg.text_width_px(name) for name in names) + 24
    lowest = min(min(before, after) for _, before, after in shown)
    x = svg.Scale(low=max(lowest - 0.02, 0), high=1.0, start=left, end=HALF_PX - 60)
    body, height = [], 22
    for value in x.ticks(5):
        body.append(svg.line(x(value), 4, x(value), len(shown) * height + 6, style=svg.GRID))
        body.append(
            svg.text(x(value), len(shown) * height + 22, f"{100 * value:g} %",
                     anchor="middle", style=svg.QUIET)
        )  # fmt: skip
    for index, (name, before, after) in enumerate(shown):
        middle = index * height + 14
        ink = svg.colour(1) if after < before else svg.colour(2) if after > before else ""
        ink = ink or svg.colour(0)
        tip = f"{name}: {percent(before)} → {percent(after)}"
        body.append(svg.text(left - 8, middle + 4, names[index], anchor="end"))
        style = f"stroke:{ink};stroke-width:2.5;stroke-opacity:0.6"
        body.append(svg.line(x(before), middle, x(after), middle, style=style))
        hollow = f"fill:var(--paper, #ffffff);stroke:{ink};stroke-width:1.6"
        body.append(svg.dot(x(before), middle, 4, style=hollow, title=tip))
        body.append(svg.dot(x(after), middle, 4, style=f"fill:{ink}", title=tip))
        change = f"{100 * (after - before):+.1f}" if after != before else "="
        body.append(svg.text(HALF_PX - 50, middle + 4, change, size_px=11, style=svg.QUIET))
    return svg.picture(HALF_PX, len(shown) * height + 30, label=label, body=body)


def reliability(found: Mapping[str, Sequence[Bin]], *, label: str) -> str:
    """Draw the share of right answers over their confidence; on the diagonal, it is honest."""
    size, inks = 330, {"float": svg.colour(5), "shipped": svg.colour(1)}
    x = svg.Scale(low=0, high=1, start=52, end=52 + size)
    y = svg.Scale(low=0, high=1, start=34 + size, end=34)
    body = svg.axes(
        x, y, x_label="confidence of the answer", y_label="share that is right",
        x_format=lambda v: f"{100 * v:g} %", y_format=lambda v: f"{100 * v:g} %",
    )  # fmt: skip
    body.append(
        svg.line(x(0), y(0), x(1), y(1),
                 style="stroke:currentColor;stroke-opacity:0.4;stroke-dasharray:4 3")
    )  # fmt: skip
    most = max(bin_.images for bins in found.values() for bin_ in bins)
    for index, (name, bins) in enumerate(found.items()):
        ink = inks.get(name, svg.colour(0))
        points = [(x(bin_.confidence), y(bin_.right)) for bin_ in bins]
        body.append(svg.polyline(points, style=f"stroke:{ink};stroke-width:1.6"))
        for one, (px, py) in zip(bins, points, strict=True):
            tip = (
                f"{name}: {count(one.images)} answers of {percent(one.confidence)} confidence, "
                f"{percent(one.right)} right"
            )
            radius = 2.5 + 5 * math.sqrt(one.images / most)
            style = f"fill:{ink};fill-opacity:0.75"
            body.append(svg.dot(px, py, radius, style=style, title=tip))
        top = 52 + index * 18
        body.append(svg.dot(x(0) + 14, top, 4, style=f"fill:{ink}"))
        body.append(svg.text(x(0) + 24, top + 4, name))
    return svg.picture(52 + size + 30, 34 + size + 44, label=label, body=body)
