"""Write docs/benchmarks.md from the committed results: `make bench-page`.

A figure in that page is never typed: it is a row of benchmarks/results/*.json, which a command
wrote. A test holds the page to the results.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.table import RESULTS

PAGE = RESULTS.parent.parent / "docs" / "benchmarks.md"
SUBJECTS = {
    "main": "The main job (`make bench`)",
    "compress": "Compression (`make bench-compress`)",
    "serve": "Serving and its traffic (`make bench-serve`)",
    "sim-canary": "How often a canary decides wrongly (`make sim-canary`)",
}
HEAD = """\
# Benchmarks

Made by `make bench-page` from the files in `benchmarks/results/`; nothing here is typed. `low` and
`high` are the smallest and largest of n, or the interval that the row's command states. A goal that
was missed says so. What a file does not hold was not measured.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(text())
    print(PAGE)


def text() -> str:
    """Return the page of all results that exist."""
    parts = [HEAD]
    for name, title in SUBJECTS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts.append(section(title, json.loads(path.read_text())))
    return "\n".join(parts)


def section(title: str, doc: dict[str, Any]) -> str:  # Any: a results file's JSON
    """Return one file's table under its title; the machine it was last measured on above it."""
    machine = doc["machine"]
    lines = [
        f"## {title}\n",
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}.\n",
        "| what | value | low | high | unit | n | goal | | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [line(row) for row in doc["rows"]]
    return "\n".join(lines) + "\n"


def line(row: dict[str, Any]) -> str:  # Any: a Row's JSON
    """Return one row of the table."""
    figures = ["" if row[key] is None else f"{row[key]:.4g}" for key in ("value", "low", "high")]
    end = "not measured" if row["value"] is None else "" if row["met"] else "**missed**"
    cells = [row["what"], *figures, row["unit"], f"{row['n']:,}", row["goal"], end, row["note"]]
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    main()
