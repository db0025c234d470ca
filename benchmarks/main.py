"""Measure the main job in a fresh clone with an empty home: `make bench`.

`--only PART …` measures some parts and keeps the other rows: setup, digits, quick, fashion, photos
(`--photos FOLDER`). Run it on an idle machine; the package caches stay warm, all else is new.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import benchmark_row, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.run_report import Interval, LastRun, RunReport, StageRecord
from benchmarks.toolbox import ROOT
from fettle.params import load

PARTS = ("setup", "digits", "quick", "fashion", "photos")
QUICK_RUNS = 10
NO_RATIO = "the run measured none"


@contextmanager
def clone() -> Iterator[tuple[Path, dict[str, str]]]:
    """Clone the committed repository beside an empty home; its servers are stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="fettle-bench-"))
    home = folder / "home"
    home.mkdir()
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    environ = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
        "HOME": str(home),
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", str(caches / "pip")),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(caches / "uv")),
    }
    tree = folder / "fettle"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tree)], check=True)
    try:
        yield tree, environ
    finally:
        if (tree / ".venv/bin/fettle").exists():
            fettle(tree, environ, "ui", "--stop")
        shutil.rmtree(folder, ignore_errors=True)


def fettle(
    tree: Path,
    environ: dict[str, str],
    *words: str,
    codes: Sequence[int] = (0,),
    within: Path | None = None,
) -> tuple[float, str]:
    """Run the clone's `fettle WORDS` in a project, the clone itself where none is given.

    Return its seconds and what it printed; end where its exit code is not one of `codes`.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [str(tree / ".venv/bin/fettle"), *words],
        cwd=within or tree,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode not in codes:
        sys.exit(f"`fettle {' '.join(words)}` ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return seconds, done.stdout


def set_up(tree: Path, environ: dict[str, str]) -> list[BenchmarkRow]:
    """Time the set-up from the lock with warm package caches."""
    started = time.perf_counter()
    subprocess.run(["make", "setup"], cwd=tree, env=environ, check=True, capture_output=True)
    return [
        benchmark_row.of_times(
            "set-up from the lock, warm cache", [time.perf_counter() - started], 120
        )
    ]


def digits(tree: Path, environ: dict[str, str]) -> list[BenchmarkRow]:
    """Run the default once from nothing, then ask for it again with nothing changed."""
    cold, _ = fettle(tree, environ, "run")
    rows = [benchmark_row.of_times("main job on digits, cold", [cold], 300)]
    again = [fettle(tree, environ, "run")[0] for _ in range(QUICK_RUNS)]
    rows.append(benchmark_row.of_times("`fettle run` with nothing changed", again, 2))
    rows.append(overhead(tree))
    facts, seed = report(tree, environ), load(tree / "params.yaml").seed
    return rows + quality_rows("digits", facts, seed=seed, float_min=0.98, params_min=8)


def overhead(tree: Path) -> BenchmarkRow:
    """Take, per stage, what the flow waited beyond the stage process's own life.

    A stage process's life is its interpreter's start, its imports and its work; what remains is
    Prefect, DVC, the fork, MLflow and the process's own end. Prefect's hop from one task to the
    next, 10 to 30 ms, lies between two stages and is not in it.
    """
    last = LastRun.model_validate_json((tree / ".fettle/last.json").read_text())
    beyond = [
        stage.seconds - _record(tree / "records" / f"{stage.name}.json").process_seconds
        for stage in last.stages
    ]
    return benchmark_row.of_times("orchestration and tracking, a stage", beyond, 0.6)


def _record(path: Path) -> StageRecord:
    return StageRecord.model_validate_json(path.read_text())


def report(tree: Path, environ: dict[str, str], *words: str) -> RunReport:
    """Read the last run's facts."""
    return RunReport.model_validate_json(fettle(tree, environ, "report", "--json", *words)[1])


def quality_rows(
    name: str, facts: RunReport, *, seed: int, float_min: float, params_min: float
) -> list[BenchmarkRow]:
    """Turn a run's facts into rows: float accuracy, parameters, drop; all on test."""
    full, drop = facts.quality.float_, facts.quality.drop
    params, speed = facts.compression.params_ratio, facts.compression.latency_ratio_interval
    speed_what, params_what = f"{name}: p50 latency, times less", f"{name}: parameters, times fewer"
    return [
        _of_interval(
            f"{name}: float accuracy on test",
            full,
            seed=seed,
            goal=f">= {float_min}",
            holds=full.value >= float_min,
        ),
        benchmark_row.not_measured(params_what, "x", "", why=NO_RATIO)
        if params is None
        else benchmark_row.measured(
            params_what,
            params,
            unit="x",
            n=1,
            seeds=[seed],
            goal=f">= {params_min:g}",
            holds=params >= params_min,
        ),
        _of_interval(
            f"{name}: accuracy drop on test, paired",
            drop,
            seed=seed,
            goal="<= 0.01",
            holds=drop.value <= 0.01,
        ),
        benchmark_row.not_measured(speed_what, "x", "> 1", why=NO_RATIO)
        if speed is None
        else _of_interval(
            speed_what, speed, unit="x", seed=seed, goal="> 1", holds=(speed.low or 0) > 1
        ),
    ]


def _of_interval(
    what: str, found: Interval, *, seed: int, goal: str, holds: bool, unit: str = "1"
) -> BenchmarkRow:
    return benchmark_row.measured(
        what,
        found.value,
        low=found.low,
        high=found.high,
        unit=unit,
        n=found.n,
        seeds=[seed],
        goal=goal,
        holds=holds,
    )


def quick(tree: Path, environ: dict[str, str]) -> list[BenchmarkRow]:
    """Time what a person waits for at the prompt."""
    helps = [fettle(tree, environ, "--help")[0] for _ in range(QUICK_RUNS)]
    wrong = ["run", "--set", "finetune.epoch_max=3"]
    errors = [fettle(tree, environ, *wrong, codes=(2,))[0] for _ in range(QUICK_RUNS)]
    return [
        benchmark_row.of_times("`fettle --help`", helps, 0.25),
        benchmark_row.of_times("an error in params.yaml", errors, 0.5),
    ]


def fashion(tree: Path, environ: dict[str, str]) -> list[BenchmarkRow]:
    """Run all 70,000 images of Fashion-MNIST."""
    file = "examples/fashion_mnist.yaml"
    seconds, _ = fettle(tree, environ, "run", "--params", file)
    facts, seed = report(tree, environ, "--params", file), load(tree / file).seed
    peak = max(
        _record(path).peak_memory_bytes
        for path in tree.glob(".fettle/ws/*/records/*.json")
        if not path.name.endswith(".error.json")
    )
    shipped = facts.quality.compressed
    return [
        benchmark_row.of_times("main job on Fashion-MNIST, 70,000 images", [seconds], 3600),
        *quality_rows("fashion_mnist", facts, seed=seed, float_min=0.92, params_min=1),
        _of_interval(
            "fashion_mnist: shipped accuracy on test",
            shipped,
            seed=seed,
            goal=">= 0.92",
            holds=shipped.value >= 0.92,
        ),
        benchmark_row.measured(
            "fashion_mnist: peak memory of a stage",
            peak / 2**30,
            unit="GiB",
            n=1,
            seeds=[seed],
            goal="<= 4",
            holds=peak <= 4 * 2**30,
        ),
    ]


def photos(tree: Path, environ: dict[str, str], folder: Path) -> list[BenchmarkRow]:
    """Run the line on a folder of photos."""
    file = "examples/photos.yaml"
    seconds, _ = fettle(tree, environ, "run", "--params", file, "--data", str(folder))
    facts, seed = report(tree, environ, "--params", file), load(tree / file).seed
    return [
        benchmark_row.of_times("main job on photos", [seconds], 900),
        *quality_rows("photos", facts, seed=seed, float_min=0.985, params_min=1),
    ]


def main() -> None:
    """Measure the chosen parts in one clone; merge the rows into benchmarks/results/main.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=["setup", "digits", "quick"])
    parser.add_argument("--photos", type=Path, help="folder of photos, one folder a class")
    chosen = parser.parse_args()
    if "photos" in chosen.only and chosen.photos is None:
        parser.error("--only photos needs --photos FOLDER")
    with clone() as (tree, environ):
        origin = row_origin.take(row_origin.command_line("benchmarks.main"), tree=tree)
        rows = set_up(tree, environ)
        rows = rows if "setup" in chosen.only else []
        if "digits" in chosen.only:
            rows += digits(tree, environ)
        if "quick" in chosen.only:
            rows += quick(tree, environ)
        if "fashion" in chosen.only:
            rows += fashion(tree, environ)
        if "photos" in chosen.only:
            rows += photos(tree, environ, chosen.photos)
    table.write("main", rows, origin)


if __name__ == "__main__":
    main()
