"""Pareto front: the points that no other beats, and the area they dominate."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]  # both lower is better


def front(points: Sequence[Point]) -> list[int]:
    """Pareto front: the positions of the points that none other beats in one and matches in the
    rest.

    Sorted by the first coordinate; of equal points the first one given stays.
    """
    positions: list[int] = []
    best = float("inf")
    for position in sorted(range(len(points)), key=lambda i: (points[i], i)):
        if points[position][1] < best:
            positions.append(position)
            best = points[position][1]
    return positions


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Hypervolume, in two dimensions the area that `points` dominate, up to `reference` (Zitzler,
    Thiele 1998).
    """
    area, last = 0.0, reference[1]
    for position in front(points):
        first, second = points[position]
        if first < reference[0] and second < last:
            area += (reference[0] - first) * (last - second)
            last = second
    return area
