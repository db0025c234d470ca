"""Student's t distribution: one-sided critical values, from the closed form for whole degrees."""

from __future__ import annotations

import math
from functools import cache


def survival(t: float, degrees: int) -> float:
    """Return P(T > t), t >= 0 (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 - inside) / 2


@cache
def critical(degrees: int, alpha: float) -> float:
    """Return the t that is exceeded with probability alpha < 1/2, by bisection."""
    low, high = 0.0, 1.0
    while survival(high, degrees) > alpha:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if survival(middle, degrees) > alpha else (low, middle)
    return high
