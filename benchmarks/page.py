"""Write docs/benchmarks.md from the committed results: `make bench-page`.

A figure in that page is never typed: it is a row of benchmarks/results/*.json, which a command
wrote. A test holds the page to the results.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import table
from benchmarks.benchmark_row import NOT_MEASURED, BenchmarkRow, Origin
from benchmarks.table import RESULTS

PAGE = RESULTS.parent.parent / "docs" / "benchmarks.md"
SUBJECTS = {
    "main": "The main job (`make bench`)",
    "compress": "Compression (`make bench-compress`)",
    "memory": "Memory by the number of photos (`make bench-memory`)",
    "serve": "Serving and its traffic (`make bench-serve`)",
    "chaos": "Faults injected into a served release (`make chaos`)",
    "sim-canary": "How often a canary decides wrongly (`make sim-canary`)",
}
HEAD = f"""\
# Benchmarks

Made by `make bench-page` from the files in `benchmarks/results/`; nothing here is typed. Rows stand
under the machine and the versions that they were taken with; seeds and command of each row
are in its file.

- `low` and `high` are the smallest and largest of `n` measurements, or the interval that the row's
  command states.
- The verdict is of the goal: `met`, **missed**, or `not judged` where n is 1: one measurement
  bears no goal. {NOT_MEASURED} says why there is no figure. What no row names was not measured.
- `when` is the day, and the commit of the code that ran. "by" a day: the row is older than this
  form and tells neither; it is the day and the commit that recorded it.
- A row that was measured again says what it was before; the file has every run.
"""
COLUMNS = ("what", "value", "low", "high", "unit", "n", "goal", "verdict", "when", "note")
SHORT_COMMIT = 7  # hex digits


def main() -> None:
    """Write the page."""
    PAGE.write_text(text())
    print(PAGE)


def text() -> str:
    """Return the page of all results that exist."""
    parts = [HEAD]
    for name, title in SUBJECTS.items():
        if rows := table.read(RESULTS / f"{name}.json"):
            parts.append(section(title, rows))
    return "\n".join(parts)


def section(title: str, rows: Sequence[BenchmarkRow]) -> str:
    """Return one file's rows under its title, a table for each machine they were taken on."""
    groups: dict[tuple[str, str], list[BenchmarkRow]] = {}
    for row in rows:
        groups.setdefault((machine(row.origin), versions(row.origin)), []).append(row)
    parts = [f"## {title}\n"]
    for (place, with_), found in groups.items():
        parts.append(f"### {place}\n\n{with_}.\n" if len(groups) > 1 else f"{place}; {with_}.\n")
        parts += [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        parts += [*map(line, found), ""]
    return "\n".join(parts)


def machine(origin: Origin) -> str:
    """Say which machine a row was taken on, and what is not known of it."""
    cores = {None: "cores not recorded", 1: "1 core"}.get(origin.cores, f"{origin.cores} cores")
    said = (origin.cpu_model or "CPU not recorded", cores, origin.platform)
    return ", ".join(filter(None, said))


def versions(origin: Origin) -> str:
    """Say which versions and instructions a row was taken with."""
    named = (origin.versions or {"versions": "not recorded"}).items()
    said = [f"{name.replace('python', 'Python')} {version}" for name, version in named]
    if origin.cpu_flags is not None:
        said.append(f"CPU flags {' '.join(origin.cpu_flags) or 'none'}")
    return ", ".join(said)


def when(origin: Origin) -> str:
    """Say on which day a row was taken, and from which commit."""
    day = origin.date[:10] if origin.date else "day not recorded"
    if origin.recorded_in is not None:
        return f"by {day} ({origin.recorded_in[:SHORT_COMMIT]})"
    if origin.commit is None:
        return day
    commit, dash, dirty = origin.commit.partition("-")
    return f"{day} ({commit[:SHORT_COMMIT]}{dash}{dirty})"


def line(row: BenchmarkRow) -> str:
    """Return one row of a table."""
    verdict = NOT_MEASURED if row.n == 0 else row.verdict
    cells = [
        row.what,
        *map(_figure, (row.value, row.low, row.high)),
        row.unit,
        f"{row.n:,}",
        row.goal,
        f"**{verdict}**" if verdict == "missed" else verdict,
        when(row.origin),
        "; ".join(filter(None, (row.reason, row.note, before(row)))),
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def before(row: BenchmarkRow) -> str:
    """Say what a row was when it was measured before, the last time first."""
    if not row.history:
        return ""
    *earlier, last = row.history
    figure = NOT_MEASURED if last.value is None else _figure(last.value)
    more = f", and {len(earlier)} more" if earlier else ""
    return f"before: {figure}, n = {last.n:,}, {when(last.origin)}{more}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()
