"""Table of predictions: written whole from the chunks, as Parquet, CSV or JSON lines.

A row: `row` (which image), `label` and `probability` (of the likeliest class), `top` (the likeliest
classes, likeliest first; text of JSON in CSV), `error` (why there is no answer, else null).
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from fettle.errors import UserError

SUFFIXES = (".parquet", ".csv", ".jsonl")
COLUMNS = ("row", "label", "probability", "top", "error")
Prediction = dict[str, object]


def check(out: Path, places: Sequence[Path]) -> None:
    """Refuse a name whose form is not known, a place that cannot be written, one of the inputs.

    Raises UserError.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(
            "--out: this form of table is not written",
            got=f"'{out.name}'",
            rule=f"its name ends in {', '.join(SUFFIXES)}",
            fix="--out predictions.parquet",
        )
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(
            f"--out: {out} cannot be written",
            got="a folder of that name" if out.is_dir() else f"no folder {out.parent}",
            fix="make the folder, or name another file",
        )
    if any(out.resolve() == place.resolve() for place in places):
        raise UserError(
            "--out: the predictions would replace their own input",
            got=str(out),
            fix="name another file",
        )


def prediction(row: str, answer: dict[str, object]) -> Prediction:
    """Make a row of a worker's answer: {"top": [[label, probability], …]} or {"error": reason}."""
    top = [{"label": label, "probability": p} for label, p in answer.get("top", [])]  # type: ignore[attr-defined]  # the worker's own JSON
    first = top[0] if top else {"label": None, "probability": None}
    return {"row": row, **first, "top": top, "error": answer.get("error")}


def write(out: Path, chunks: Iterable[Sequence[Prediction]]) -> None:
    """Write every chunk in order, in one atomic step: a reader sees the old table or the new."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    kinds = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
    try:
        kinds[out.suffix.lower()](temporary, chunks)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _write_parquet(path: Path, chunks: Iterable[Sequence[Prediction]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    entry = pa.struct([("label", pa.string()), ("probability", pa.float64())])
    kinds = (pa.string(), pa.string(), pa.float64(), pa.list_(entry), pa.string())
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in chunks:
            writer.write_table(pa.Table.from_pylist(list(rows), schema=schema))


def _write_csv(path: Path, chunks: Iterable[Sequence[Prediction]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        for rows in chunks:
            writer.writerows({**row, "top": json.dumps(row["top"])} for row in rows)


def _write_jsonl(path: Path, chunks: Iterable[Sequence[Prediction]]) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for rows in chunks:
            handle.writelines(json.dumps(row) + "\n" for row in rows)
