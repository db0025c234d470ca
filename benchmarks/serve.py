"""Measure the last release as it is served, and its traffic: `make bench-serve`.

`--only ROW …` measures some rows and keeps the others: a row is a file in benchmarks/serve_rows/.
All traffic is loopback. Run it on an idle machine: the servers and the load share its cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from benchmarks import row_origin, table
from fettle import project as projects

ROWS = Path(__file__).resolve().parent / "serve_rows"
SECONDS = 10.0  # of load a point; shorter runs of the same server differed by up to 8 %


@dataclass(frozen=True, slots=True)
class Context:
    """What a row measures: the published `release`, a `scratch` folder, `seconds` of load."""

    root: Path
    release: Path
    scratch: Path
    seconds: float


def names() -> list[str]:
    """List the rows: files of serve_rows that do not begin with an underscore."""
    return sorted(path.stem for path in ROWS.glob("[!_]*.py"))


def row(name: str) -> ModuleType:
    """Load one row file."""
    return import_module(f"benchmarks.serve_rows.{name}")


@contextmanager
def context(seconds: float, release: Path | None) -> Iterator[Context]:
    """Find the release (the last one unless given) and make a scratch folder for the block."""
    home = projects.find()
    folder = release or home.root / json.loads(home.last.read_text())["release"]["folder"]
    scratch = Path(tempfile.mkdtemp(prefix="fettle-bench-serve-"))
    try:
        yield Context(home.root, folder.resolve(), scratch, seconds)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> None:
    """Measure the chosen rows; merge them into benchmarks/results/serve.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=names(), default=names(), metavar="ROW")
    parser.add_argument("--release", type=Path, help="a release folder; the last one if left out")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of load a point")
    chosen = parser.parse_args()
    origin = row_origin.take(row_origin.command_line("benchmarks.serve"))
    for name in chosen.only:
        with context(chosen.seconds, chosen.release) as one:
            print(f"{name}: {row(name).WHAT}", flush=True)
            rows = row(name).run(one)
        table.write("serve", rows, origin)


if __name__ == "__main__":
    main()
