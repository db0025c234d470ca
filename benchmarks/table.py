"""Hold benchmark rows: print them as a table, write them as benchmarks/results/NAME.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from fettle.hardware import machine_fingerprint
from fettle.manifest import write_json
from fettle.measure import Measure

RESULTS = Path(__file__).resolve().parent / "results"
VERSIONS = ("bentoml", "dvc", "mlflow", "onnxruntime", "openvino", "prefect", "torch")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: `low` and `high` are the smallest and largest of n, or a stated interval.

    What could not be measured has no value, is not met, and says why in `note`; where a goal is
    missed, the note says what was tried.
    """

    what: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    n: int
    goal: str
    met: bool
    note: str = ""


def not_measured(what: str, unit: str, goal: str, *, why: str) -> Row:
    """Make the row of a figure that cannot be taken here."""
    return Row(what, None, None, None, unit, 0, goal, False, f"not measured: {why}")


def of_times(what: str, seconds: Sequence[float], at_most: float) -> Row:
    """Make a row of the median of several times, with a goal that it must not exceed."""
    median = statistics.median(seconds)
    return Row(
        what,
        median,
        min(seconds),
        max(seconds),
        "s",
        len(seconds),
        f"<= {at_most:g}",
        median <= at_most,
    )


def of_measure(what: str, measure: Measure, *, goal: str, met: bool, note: str = "") -> Row:
    """Make a row of a measured value with its interval; without one, the value is both its ends."""
    value = measure.value
    low = value if measure.low is None else measure.low
    high = value if measure.high is None else measure.high
    return Row(what, value, low, high, measure.unit, measure.n, goal, met, note)


def write(name: str, command: str, rows: Sequence[Row], *, quiet: bool = False) -> Path:
    """Merge `rows` (by `what`) into the results file and print the whole table unless quiet."""
    path = RESULTS / f"{name}.json"
    old = json.loads(path.read_text())["rows"] if path.is_file() else []
    new = {row.what: asdict(row) for row in rows}
    merged = [new.pop(row["what"], row) for row in old] + list(new.values())
    write_json(
        path,
        {
            "command": command,
            "machine": machine_fingerprint.fingerprint(),
            "versions": {package: metadata.version(package) for package in VERSIONS},
            "rows": merged,
        },
    )
    if not quiet:
        show(merged)
    return path


def show(rows: Sequence[dict[str, object]]) -> None:
    """Print rows as a table, with misses marked."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("what", "value", "low", "high", "unit", "n", "goal", ""):
        words = column in ("what", "unit", "goal", "")
        table.add_column(column, justify="left" if words else "right")
    for row in rows:
        numbers = [
            "-" if row[key] is None else f"{row[key]:.4g}" for key in ("value", "low", "high")
        ]
        mark = "" if row["met"] or row["value"] is None else "missed"  # its note is below
        table.add_row(
            str(row["what"]), *numbers, str(row["unit"]), str(row["n"]), str(row["goal"]), str(mark)
        )
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row.get("note"):
            console.print(f"{row['what']}: {row['note']}", style="dim")
