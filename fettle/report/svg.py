"""SVG drawing by hand: text stays text, ink follows the page's colour scheme.

Inline pictures use `currentColor` and the `--series-N` colours of page.css, so one drawing serves
light, dark and paper. Coordinates are rounded to a tenth of a pixel: same numbers, same bytes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# page.css names the same colours; the fallback serves a picture that stands alone
SERIES = ("#2166a5", "#b8561f", "#2f7d55", "#7a4fa3", "#8a6c0c", "#5b6670")
FONT_PX = 12
# mean glyph width of a sans-serif face in ems, a little generous: measured on DejaVu Sans (0.56)
GLYPH_EM = 0.58
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def colour(index: int) -> str:
    """Return the CSS colour of series `index` (from 0), cycling."""
    at = index % len(SERIES)
    return f"var(--series-{at + 1}, {SERIES[at]})"


def number(value: float) -> str:
    """Format a coordinate: a tenth of a pixel, no trailing zero, never "-0"."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def text_width_px(text: str, size_px: float = FONT_PX) -> float:
    """Estimate how wide `text` will be: browsers differ, so keep a margin."""
    return len(text) * size_px * GLYPH_EM


def shorten(text: str, most: int) -> str:
    """Cut a label to `most` characters, with an ellipsis for what is left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    style: str = "",
    size_px: float = FONT_PX,
    turn_degrees: float = 0,
) -> str:
    """Place escaped text with its baseline at (x, y); `anchor` is start, middle or end."""
    turn = (
        f' transform="rotate({number(turn_degrees)} {number(x)} {number(y)})"'
        if turn_degrees
        else ""
    )
    extra = f' style="{style}"' if style else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" '
        f'font-size="{number(size_px)}" fill="currentColor"{extra}{turn}>'
        f"{html.escape(content)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, *, style: str) -> str:
    """Draw one straight line."""
    return (
        f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
        f'style="{style}"/>'
    )


def rect(x: float, y: float, width: float, height: float, *, style: str, title: str = "") -> str:
    """Draw a rectangle; `title` shows when pointed at."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" '
        f'height="{number(max(height, 0))}" style="{style}">{tip}</rect>'
    )


def dot(x: float, y: float, radius: float, *, style: str, title: str = "") -> str:
    """Draw a disc; `title` shows when pointed at."""
    tip = f"<title>{html.escape(title)}</title>" if title else ""
    return (
        f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" style="{style}">'
        f"{tip}</circle>"
    )


def polyline(points: Iterable[tuple[float, float]], *, style: str) -> str:
    """Draw a line through points."""
    path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return f'<polyline points="{path}" style="fill:none;{style}"/>'


def picture(width: float, height: float, *, label: str, body: Sequence[str]) -> str:
    """Wrap drawn parts into one <svg>; `label` is what a screen reader says."""
    return (
        f'<svg viewBox="0 0 {number(width)} {number(height)}" role="img" '
        f'aria-label="{html.escape(label)}" style="max-width:{number(width)}px" '
        f'font-family="{html.escape(FONT)}">{"".join(body)}</svg>'
    )


def stand_alone(inline: str) -> str:
    """Turn an inline picture into a file of its own: namespace, ink and paper given."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    own = inline.replace("<svg ", head, 1)
    return own.replace('style="max-width:', 'style="color:#1d2329;background:#ffffff;max-width:', 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Map values in [low, high] to pixels in [start, end], straight or by powers of ten."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of `value`; values outside are held at the ends."""
        low, high, at = (self._warp(v) for v in (self.low, self.high, value))
        share = 0.5 if high == low else min(max((at - low) / (high - low), 0), 1)
        return self.start + share * (self.end - self.start)

    def _warp(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.log else value

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values within the range, at most about `most` of them."""
        return log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, most)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten that lie in [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten in [low, high]; only the powers when many.

    A range within one power of ten has too few of them: then multiples of one step.
    """
    if high / low < 10:
        return ticks(low, high, 5)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    mantissas = (1,) if last - first > 3 else (1, 2, 5)
    found = [
        m * 10.0**p for p in range(first, last + 1) for m in mantissas if low <= m * 10.0**p <= high
    ]
    return [float(f"{value:.12g}") for value in found] or [low, high]


def log_range(values: Sequence[float]) -> tuple[float, float]:
    """Return a range around positive values with room at both ends (a tenth of the span)."""
    low, high = min(values), max(values)
    spread = max(high / low, 1.5) ** 0.15
    return low / spread, high * spread


AXIS = "stroke:currentColor;stroke-opacity:0.45;stroke-width:1"
GRID = "stroke:currentColor;stroke-opacity:0.12;stroke-width:1"
QUIET = "fill-opacity:0.7"


def axes(
    x: Scale,
    y: Scale,
    *,
    x_label: str,
    y_label: str,
    x_format: Callable[[float], str],
    y_format: Callable[[float], str],
    x_ticks: Sequence[float] | None = None,
) -> list[str]:
    """Draw a light grid, tick labels and axis names; y grows upward (y.start is the bottom)."""
    parts = []
    for value in y.ticks():
        parts.append(line(x.start, y(value), x.end, y(value), style=GRID))
        parts.append(text(x.start - 6, y(value) + 4, y_format(value), anchor="end", style=QUIET))
    for value in x.ticks() if x_ticks is None else x_ticks:
        parts.append(line(x(value), y.start, x(value), y.start + 4, style=AXIS))
        parts.append(text(x(value), y.start + 18, x_format(value), anchor="middle", style=QUIET))
    parts.append(line(x.start, y.start, x.end, y.start, style=AXIS))
    parts.append(text((x.start + x.end) / 2, y.start + 36, x_label, anchor="middle"))
    parts.append(text(x.start - 6, y.end - 12, y_label, anchor="start"))
    return parts
