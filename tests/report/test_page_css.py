"""Hold the stylesheet: the classes pages rely on, light and dark, print, contrast, no network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fettle.report import html_page, svg

CSS = Path(html_page.__file__).with_name("page.css").read_text()
LEAST_CONTRAST = 4.5  # WCAG 2.1, success criterion 1.4.3, for text of normal size


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


LIGHT = colours(CSS[: CSS.index("@media (prefers-color-scheme: dark)")])
DARK = colours(CSS[CSS.index("prefers-color-scheme: dark") : CSS.index("* { box-sizing")])
PRINT = colours(CSS[CSS.index("@media print") :])


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.1."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", ["pass", "fail", "warn", "grid", "num", "muted"])
def test_the_classes_that_pages_share_are_there(name: str) -> None:
    assert re.search(rf"\.{name}\b[^{{}}]*\{{", CSS)


def test_it_needs_no_network() -> None:
    assert not re.search(r"https?:|@import|@font-face|url\(", CSS)


def test_every_colour_has_a_light_a_dark_and_a_printed_form() -> None:
    assert len(LIGHT) == 18
    assert set(LIGHT) == set(DARK) == set(PRINT)


@pytest.mark.parametrize("scheme", [LIGHT, DARK, PRINT], ids=["light", "dark", "print"])
def test_text_stands_out_from_its_paper(scheme: dict[str, str]) -> None:
    for ink in ("ink", "muted", "link", *(f"series-{at}" for at in range(1, 7))):
        assert contrast(scheme[ink], scheme["paper"]) >= LEAST_CONTRAST, ink
    for ink in ("ink", "muted"):
        assert contrast(scheme[ink], scheme["panel"]) >= LEAST_CONTRAST, ink
    for badge in ("pass", "fail", "warn"):
        assert contrast(scheme[badge], scheme[f"{badge}-paper"]) >= LEAST_CONTRAST, badge


def test_pictures_fall_back_to_the_same_series_colours() -> None:
    assert [LIGHT[f"series-{at + 1}"] for at in range(len(svg.SERIES))] == list(svg.SERIES)


def test_braces_are_balanced() -> None:
    assert CSS.count("{") == CSS.count("}") > 60
