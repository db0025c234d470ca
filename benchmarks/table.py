"""Keep benchmark rows in benchmarks/results/NAME.json, a line each, and print them as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from benchmarks.benchmark_row import FROZEN, BenchmarkRow, Origin
from fettle.manifest import write_text

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = 2  # form 1 had one machine for all rows of a file, and no history


class ResultsFile(BaseModel):
    """The content of a results file."""

    model_config = FROZEN

    schema_: Literal[2] = Field(alias="schema")
    rows: tuple[BenchmarkRow, ...]


def read(path: Path) -> list[BenchmarkRow]:
    """Read a results file; without one there are no rows."""
    return list(parse(path.read_text())) if path.is_file() else []


def parse(text: str) -> tuple[BenchmarkRow, ...]:
    """Parse the text of a results file."""
    return ResultsFile.model_validate_json(text).rows


def form(rows: Sequence[BenchmarkRow]) -> str:
    """Return the text of a results file: a line a row, so that a new run changes one line."""
    lines = ",\n".join(row.model_dump_json() for row in rows)
    return f'{{"schema": {SCHEMA}, "rows": [\n{lines}\n]}}\n'


def write(
    name: str,
    rows: Sequence[BenchmarkRow],
    origin: Origin,
    *,
    quiet: bool = False,
    folder: Path = RESULTS,
) -> Path:
    """Merge `rows` (by `what`), each with `origin`, into a results file; print all unless quiet.

    A row that was measured before keeps what it was.
    """
    path = folder / f"{name}.json"
    merged = {row.what: row for row in read(path)}
    for row in rows:
        new, old = row.at(origin), merged.get(row.what)
        merged[row.what] = new if old is None else new.after(old)
    write_text(path, form(list(merged.values())))
    if not quiet:
        show(list(merged.values()))
    return path


def show(rows: Sequence[BenchmarkRow]) -> None:
    """Print rows as a table, with misses marked."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("what", "value", "low", "high", "unit", "n", "goal", ""):
        words = column in ("what", "unit", "goal", "")
        table.add_column(column, justify="left" if words else "right")
    for row in rows:
        figures = ["-" if x is None else f"{x:.4g}" for x in (row.value, row.low, row.high)]
        mark = "" if row.verdict == "met" else row.verdict.partition(":")[0]
        table.add_row(row.what, *figures, row.unit, str(row.n), row.goal, mark)
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        for said in (row.reason, row.note):
            if said:
                console.print(f"{row.what}: {said}", style="dim")
