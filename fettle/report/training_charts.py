"""Training charts: curves, confusion matrix, pruned layers and the stage times as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from fettle.report import svg
from fettle.report.number_format import count, percent, seconds

HALF_PX = 520  # two pictures side by side in the page's .grid
WHOLE_PX = 1080
CLASSES_WITH_COUNTS = 20  # a larger matrix shows shade only: the figures would not fit the cells


def curve(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    y_label: str,
    y_percent: bool,
    phases: Sequence[float] = (),
    label: str,
) -> str:
    """Draw lines over epochs; `series` maps a name to (epoch, value), `phases` get a line each."""
    values = [value for points in series.values() for _, value in points]
    epochs = [epoch for points in series.values() for epoch, _ in points]
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or 0.05
    top = min(high + room, 1.0) if y_percent else high + room
    bottom = low - room if y_percent else max(low - room, 0)
    x = svg.Scale(low=min(epochs), high=max(epochs), start=48, end=HALF_PX - 110)
    y = svg.Scale(low=bottom, high=top, start=230, end=34)
    body = svg.axes(
        x,
        y,
        x_label="epoch",
        y_label=y_label,
        x_format=lambda v: f"{v:g}",
        y_format=(lambda v: f"{100 * v:g} %") if y_percent else (lambda v: f"{v:g}"),
        x_ticks=[t for t in x.ticks(8) if t == int(t)],
    )
    for epoch in phases:
        dashes = "stroke:currentColor;stroke-opacity:0.4;stroke-dasharray:3 3"
        body.append(svg.line(x(epoch), 34, x(epoch), 230, style=dashes))
    ends = [(x(points[-1][0]), y(points[-1][1])) for points in series.values()]
    heights = _spread([end[1] for end in ends], gap=15)
    for index, (name, points) in enumerate(series.items()):
        ink = svg.colour(index)
        body.append(
            svg.polyline([(x(e), y(v)) for e, v in points], style=f"stroke:{ink};stroke-width:1.8")
        )
        body += [svg.dot(x(e), y(v), 2.2, style=f"fill:{ink}") for e, v in points]
        body.append(svg.text(ends[index][0] + 8, heights[index] + 4, name, style=f"fill:{ink}"))
    return svg.picture(HALF_PX, 272, label=label, body=body)


def _spread(positions: Sequence[float], *, gap: float) -> list[float]:
    """Push positions apart until neighbours are at least `gap` from each other; order is kept."""
    order = sorted(range(len(positions)), key=lambda at: positions[at])
    moved = list(positions)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + gap)
    return moved


def confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw counts[true][predicted]: shade is the share of the true class, off the diagonal in
    another colour.
    """
    n = len(classes)
    cell = min(44.0, max(420 / n, 6.0))
    names = [svg.shorten(name, 18) for name in classes]
    margin = max(svg.text_width_px(name) for name in names) + 30
    turned = max(svg.text_width_px(name) for name in names) > cell - 4
    top = margin if turned else 44
    body = [svg.text(margin + n * cell / 2, 14, "predicted", anchor="middle", style=svg.QUIET)]
    body.append(
        svg.text(14, top + n * cell / 2, "true", anchor="middle", style=svg.QUIET, turn_degrees=-90)
    )
    every = math.ceil(svg.FONT_PX / cell)
    for index, name in enumerate(names):
        middle = (index + 0.5) * cell
        if index % every == 0:
            body.append(svg.text(margin - 6, top + middle + 4, name, anchor="end"))
            body.append(
                svg.text(margin + middle + 4, top - 6, name, turn_degrees=-90)
                if turned
                else svg.text(margin + middle, top - 6, name, anchor="middle")
            )
        body += _confusion_row(classes, counts[index], index, left=margin, top=top, cell=cell)
    size = n * cell
    frame = "fill:none;stroke:currentColor;stroke-opacity:0.35"
    body.append(svg.rect(margin, top, size, size, style=frame))
    right = sum(sum(row) for row in counts)
    hits = sum(counts[at][at] for at in range(n))
    return svg.picture(
        margin + size + 12,
        top + size + 12,
        label=f"Confusion matrix: {count(hits)} of {count(right)} test images on the diagonal",
        body=body,
    )


def _confusion_row(
    classes: Sequence[str], row: Sequence[int], true: int, *, left: float, top: float, cell: float
) -> list[str]:
    parts, total = [], max(sum(row), 1)
    for predicted, images in enumerate(row):
        if not images:
            continue
        share = images / total
        ink = svg.colour(0) if predicted == true else svg.colour(1)
        # a single mistake must be seen, and the ink of the numbers must stand out in the dark too
        shade = 0.1 + 0.4 * share if predicted == true else 0.25 + 0.5 * share
        parts.append(
            svg.rect(
                left + predicted * cell,
                top + true * cell,
                cell,
                cell,
                style=f"fill:{ink};fill-opacity:{shade:.2f}",
                title=f"true {classes[true]}, predicted {classes[predicted]}: {count(images)}"
                f" ({percent(share)} of the class)",
            )
        )
        if len(classes) <= CLASSES_WITH_COUNTS:
            x, y = left + (predicted + 0.5) * cell, top + (true + 0.5) * cell + 4
            size = 12 if cell >= 28 and images < 10_000 else 9
            parts.append(svg.text(x, y, str(images), anchor="middle", size_px=size))
    return parts


def layers(rows: Sequence[tuple[str, int, int]], *, named: str, label: str) -> str:
    """Draw one bar a layer, (name, before, after): pale before, solid after; `named` is counted."""
    before = [float(row[1]) for row in rows]
    after = [float(row[2]) for row in rows]
    x = svg.Scale(low=0, high=len(rows), start=64, end=WHOLE_PX - 8)
    y = svg.Scale(low=0, high=max([*before, 1]), start=200, end=34)
    width = (x(1) - x(0)) * 0.8
    every = max(1, math.ceil(len(rows) / 30))
    body = svg.axes(
        x,
        y,
        x_label="layer, from the input to the head",
        y_label=f"{named} (pale: before, solid: after)",
        x_format=lambda v: str(round(v + 0.5)),
        y_format=lambda v: f"{v:,.0f}",
        x_ticks=[at + 0.5 for at in range(0, len(rows), every)],
    )
    for index, row in enumerate(rows):
        left = x(index) + width / 8
        tip = f"{row[0]}: {count(before[index])} → {count(after[index])} {named}"
        for value, opacity in ((before[index], 0.25), (after[index], 1)):
            style = f"fill:{svg.colour(0)};fill-opacity:{opacity}"
            body.append(svg.rect(left, y(value), width, 200 - y(value), style=style, title=tip))
    return svg.picture(WHOLE_PX, 244, label=label, body=body)


def stage_times(stages: Sequence[tuple[str, float | None, bool | None]]) -> str:
    """Draw one bar a stage, (name, seconds, cached); a cached one is pale: its time was not spent
    in this run.
    """
    row = 22
    longest = max([s for _, s, _ in stages if s is not None] + [1e-9])
    names = [svg.shorten(name, 34) for name, _, _ in stages]
    left = max(svg.text_width_px(name) for name in names) + 16
    x = svg.Scale(low=0, high=longest, start=left, end=WHOLE_PX - 210)
    body = []
    for index, (_, spent, cached) in enumerate(stages):
        top = index * row + 4
        body.append(svg.text(left - 8, top + 14, names[index], anchor="end"))
        if spent is None:
            body.append(svg.text(left + 4, top + 14, "not measured", style=svg.QUIET))
            continue
        opacity = 0.3 if cached else 1
        style = f"fill:{svg.colour(0)};fill-opacity:{opacity}"
        width = max(x(spent) - left, 1.5)
        body.append(svg.rect(left, top + 3, width, row - 8, style=style))
        note = f"{seconds(spent)}, cached" if cached else seconds(spent)
        body.append(svg.text(left + width + 6, top + 14, note, style=svg.QUIET))
    spoken = "; ".join(
        f"{name} {seconds(s) if s is not None else 'not measured'}{' (cached)' if c else ''}"
        for name, s, c in stages
    )
    return svg.picture(WHOLE_PX, len(stages) * row + 8, label=f"Stage times: {spoken}", body=body)
