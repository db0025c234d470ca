"""Measure compression on real data against tools that are run, not quoted: `make bench-compress`.

One file of benchmarks/compress_rows is one subject: WHAT (a line), GOAL (what it is held to) and
`run(context)`, which yields rows. `--only ROW …` measures some and keeps the others' figures; each
row is written as soon as it is measured, so a long bench goes on by naming what is missing.
Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from pathlib import Path

from benchmarks import compress_rows, row_origin, table
from benchmarks.context import DATA, Context


def names() -> list[str]:
    """List the row files; those that begin with '_' are parts that rows share."""
    found = (module.name for module in pkgutil.iter_modules(compress_rows.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def main() -> None:
    """Measure the chosen rows; merge them into benchmarks/results/compress.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names(), default=names(), metavar="ROW")
    parser.add_argument("--data", nargs="+", choices=sorted(DATA), metavar="SET")
    parser.add_argument("--photos", type=Path, help="folder of photos, one folder a class")
    parser.add_argument("--rounds", type=int, default=200, help="of each latency comparison")
    parser.add_argument("--list", action="store_true", help="say what each row measures, and stop")
    chosen = parser.parse_args()
    rows = {name: importlib.import_module(f"benchmarks.compress_rows.{name}") for name in names()}
    if chosen.list:
        for name, row in rows.items():
            print(f"{name:<24} {row.WHAT}  [{row.GOAL}]")
        return
    data = chosen.data or [name for name in DATA if name != "photos" or chosen.photos]
    if "photos" in data and chosen.photos is None:
        parser.error("--data photos needs --photos FOLDER")
    context = Context(data=tuple(data), photos=chosen.photos, rounds=chosen.rounds)
    origin = row_origin.take(row_origin.command_line("benchmarks.compress"))
    for name in chosen.only:
        started = time.perf_counter()
        print(f"{name}: {rows[name].WHAT} …", file=sys.stderr, flush=True)
        for row in rows[name].run(context):
            table.write("compress", [row], origin, quiet=True)
            table.show([row])
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
