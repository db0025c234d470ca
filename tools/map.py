"""Draw the layers of docs/map.md from the import contract in pyproject.toml: `make map`.

Rooms of one line are siblings: "·" between rooms that may import one another, "|" between rooms
that may not. The import linter holds what is drawn; tests/house holds that it is drawn so.
"""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "map.md"
BEGIN, END = "<!-- layers: made by `make map` -->\n", "<!-- layers end -->\n"
WIDTH = 118


def layers(pyproject: str) -> list[str]:
    """Return the layers of the contract, the highest first."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    return next(list(one["layers"]) for one in contracts if one["type"] == "layers")


def picture(pyproject: str) -> str:
    """Return the drawing: a line a layer, wrapped; imports point down only."""
    lines = []
    for layer in layers(pyproject):
        mark = " | " if "|" in layer else " · "
        rooms = [room.removeprefix("fettle.") for room in re.split(r"\s*[:|]\s*", layer)]
        lines += textwrap.wrap(mark.join(rooms), WIDTH, subsequent_indent="    ")
    return "```\n" + "\n".join(lines) + "\n```\n"


def drawn(page: str, pyproject: str) -> str:
    """Return the page with its drawing made anew."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{picture(pyproject)}{END}{after}"


def main() -> int:
    """Write the page."""
    page, pyproject = PAGE.read_text(), (ROOT / "pyproject.toml").read_text()
    PAGE.write_text(drawn(page, pyproject))
    return 0


if __name__ == "__main__":
    sys.exit(main())
