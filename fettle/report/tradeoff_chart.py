"""Trade-off chart: accuracy against a cost (latency, size), with every interval as a whisker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fettle.report import svg
from fettle.report.number_format import percent, percent_bare

WIDTH_PX, HEIGHT_PX = 520, 380
# a rim of paper around a label keeps it readable where it must cross a whisker
HALO = "paint-order:stroke;stroke:var(--paper, #ffffff);stroke-width:4px;stroke-linejoin:round;"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One model file: `x` and `y` are (value, low, high); `kind` is float, target or chosen.

    `said` is x with its unit, for the tip.
    """

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    kind: str
    said: str


def tradeoff(
    points: Sequence[Point],
    *,
    x_label: str,
    x_format: Callable[[float], str],
    label: str,
    least: float | None = None,
) -> str:
    """Draw the points with whiskers and the front of those that none other beats in both.

    `least` is the accuracy that the budget leaves, a line across.
    """
    x_low, x_high = svg.log_range([end for p in points for end in p.x])
    low, high = min(p.y[1] for p in points), max(p.y[2] for p in points)
    low = low if least is None else min(low, least)
    room = max(0.06 * (high - low), 0.002)
    x = svg.Scale(low=x_low, high=x_high, start=52, end=WIDTH_PX - 12, log=True)
    y = svg.Scale(low=max(low - room, 0), high=high + room, start=HEIGHT_PX - 46, end=34)
    body = svg.axes(
        x,
        y,
        x_label=x_label,
        y_label="accuracy on validation",
        x_format=x_format,
        y_format=lambda v: f"{100 * v:g} %",
    )
    steps = front([(p.x[0], p.y[0]) for p in points])
    body.append(
        svg.polyline(
            [(x(px), y(py)) for px, py in stairs(steps)],
            style="stroke:currentColor;stroke-opacity:0.35;stroke-dasharray:4 3",
        )
    )
    if least is not None:
        ink = svg.colour(1)
        dashes = f"stroke:{ink};stroke-width:1.2;stroke-dasharray:6 4;stroke-opacity:0.8"
        body.append(svg.line(x.start, y(least), x.end, y(least), style=dashes))
        body.append(
            svg.text(x.end, y(least) + 13, "budget", anchor="end", style=f"fill:{ink}", size_px=11)
        )
    marks, taken = [], []
    for point in points:
        drawn, boxes = _mark(point, x, y)
        marks += drawn
        taken += boxes
    centres = [(x(p.x[0]), y(p.y[0])) for p in points]
    area = Box(x.start, y.end, x.end, y.start - 2)
    spots = place(centres, [p.name for p in points], taken=taken, within=area)
    for point, (px, py), (tx, ty) in zip(points, centres, spots, strict=True):
        body += _leader((px, py), (tx, ty), point.name)
        weight = "font-weight:650;" if point.kind == "chosen" else ""
        marks.append(svg.text(tx, ty, point.name, style=f"{weight}{HALO}fill:{_ink(point)}"))
    return svg.picture(WIDTH_PX, HEIGHT_PX, label=label, body=body + marks)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, gain) that none beats in both, by growing cost."""
    kept: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda p: (p[0], -p[1])):
        if not kept or gain > kept[-1][1]:
            kept.append((cost, gain))
    return kept


def stairs(steps: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of the line that a front (cost, gain) draws: along, then up."""
    path = []
    for index, (cost, gain) in enumerate(steps):
        if index:
            path.append((cost, steps[index - 1][1]))
        path.append((cost, gain))
    return path


def _ink(point: Point) -> str:
    return {"float": svg.colour(5), "chosen": svg.colour(1)}.get(point.kind, svg.colour(0))


def _mark(point: Point, x: svg.Scale, y: svg.Scale) -> tuple[list[str], list[Box]]:
    ink = _ink(point)
    px, py = x(point.x[0]), y(point.y[0])
    left, right, top, bottom = x(point.x[1]), x(point.x[2]), y(point.y[2]), y(point.y[1])
    whisker = f"stroke:{ink};stroke-width:1;stroke-opacity:0.45"
    fill = f"fill:none;stroke:{ink};stroke-width:2" if point.kind == "float" else f"fill:{ink}"
    tip = (
        f"{point.name}: {point.said}, accuracy {percent(point.y[0])} "
        f"[{percent_bare(point.y[1])}, {percent_bare(point.y[2])}]"
    )
    drawn = [
        svg.line(left, py, right, py, style=whisker),
        svg.line(px, top, px, bottom, style=whisker),
        svg.dot(px, py, 6 if point.kind == "chosen" else 4.5, style=fill, title=tip),
    ]
    boxes = [
        Box(px - 8, py - 8, px + 8, py + 8),
        Box(left, py - 2, right, py + 2),
        Box(px - 2, top, px + 2, bottom),
    ]
    return drawn, boxes


def _leader(point: tuple[float, float], start: tuple[float, float], name: str) -> list[str]:
    """Tie a label to its point when it stands away from it."""
    (px, py), (tx, ty) = point, start
    width = svg.text_width_px(name)
    near_x = min(max(px, tx), tx + width)
    near_y = ty - 4 if tx > px or tx + width < px else ty + 3 if ty < py else ty - 11
    if abs(near_y - py) <= 14 and abs(near_x - px) <= 14:
        return []
    thin = "stroke:currentColor;stroke-opacity:0.4;stroke-width:0.8"
    return [svg.line(px, py, near_x, near_y, style=thin)]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on the picture, in pixels, y downward."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the shared area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)


def place(
    points: Sequence[tuple[float, float]],
    labels: Sequence[str],
    *,
    taken: Sequence[Box],
    within: Box,
) -> list[tuple[float, float]]:
    """Choose where each label's text starts (x, baseline) so that none covers another.

    Tries spots around each point, the near ones first, and takes the first with no overlap with
    `taken` (marks, whiskers) or an earlier label; when all are covered, the least covered one.
    """
    boxes = list(taken)
    chosen: list[tuple[float, float]] = []
    for (px, py), label in zip(points, labels, strict=True):
        width = svg.text_width_px(label)
        spots = [_spot(px, py, width, dx, dy) for dx, dy in _OFFSETS]
        spots = [s for s in spots if _inside(s, within)] or spots
        best = min(spots, key=lambda spot: sum(spot.overlap(b) for b in boxes))
        boxes.append(best)
        chosen.append((best.left, best.bottom - 4))
    return chosen


# right, left, above, below, then the corners, each at growing distance (side, lift in pixels)
_OFFSETS = [
    (side, lift)
    for reach in (0, 14, 28, 42, 60, 80, 100)
    for side, lift in (
        (1, -reach),
        (-1, -reach),
        (1, reach),
        (-1, reach),
        (0, -14 - reach),
        (0, 20 + reach),
    )
]


def _spot(px: float, py: float, width: float, side: float, lift: float) -> Box:
    left = px + 10 if side > 0 else px - 10 - width if side < 0 else px - width / 2
    return Box(left, py + lift - 8, left + width, py + lift + 8)


def _inside(box: Box, within: Box) -> bool:
    return (
        box.left >= within.left
        and box.right <= within.right
        and box.top >= within.top
        and box.bottom <= within.bottom
    )
