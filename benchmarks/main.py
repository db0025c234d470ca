"""Measure the main job in a fresh clone with an empty home: `make bench`.

`--only PART …` measures some parts and keeps the other rows: setup, digits, quick, fashion, photos
(`--photos FOLDER`). Run it on an idle machine; the package caches stay warm, all else is new.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.table import Row

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("setup", "digits", "quick", "fashion", "photos")
QUICK_RUNS = 10


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


def fettle(tree: Path, environ: dict[str, str], *words: str, code: int = 0) -> tuple[float, str]:
    """Run the clone's `fettle WORDS`; return its seconds and what it printed."""
    started = time.perf_counter()
    done = subprocess.run(
        [str(tree / ".venv/bin/fettle"), *words],
        cwd=tree,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode != code:
        sys.exit(f"`fettle {' '.join(words)}` ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return seconds, done.stdout


def set_up(tree: Path, environ: dict[str, str]) -> list[Row]:
    """Time the set-up from the lock with warm package caches."""
    started = time.perf_counter()
    subprocess.run(["make", "setup"], cwd=tree, env=environ, check=True, capture_output=True)
    return [
        table.of_times("set-up from the lock, warm cache", [time.perf_counter() - started], 120)
    ]


def digits(tree: Path, environ: dict[str, str]) -> list[Row]:
    """Run the default once from nothing, then ask for it again with nothing changed."""
    cold, _ = fettle(tree, environ, "run")
    rows = [table.of_times("main job on digits, cold", [cold], 300)]
    again = [fettle(tree, environ, "run")[0] for _ in range(QUICK_RUNS)]
    rows.append(table.of_times("`fettle run` with nothing changed", again, 2))
    rows.append(overhead(tree))
    return rows + quality_rows("digits", report(tree, environ), float_min=0.98, params_min=8)


def overhead(tree: Path) -> Row:
    """Take, per stage, what the flow waited beyond the stage process's own life.

    A stage process's life is its interpreter's start, its imports and its work; what remains is
    Prefect, DVC, the fork, MLflow and the process's own end. Prefect's hop from one task to the
    next, 10 to 30 ms, lies between two stages and is not in it.
    """
    last = json.loads((tree / ".fettle/last.json").read_text())
    lives = {
        stage["name"]: json.loads((tree / "records" / f"{stage['name']}.json").read_text())
        for stage in last["stages"]
    }
    beyond = [s["seconds"] - lives[s["name"]]["process_seconds"] for s in last["stages"]]
    return table.of_times("orchestration and tracking, a stage", beyond, 0.6)


def report(tree: Path, environ: dict[str, str], *words: str) -> dict[str, Any]:  # Any: JSON
    """Read the last run's facts."""
    facts: dict[str, Any] = json.loads(fettle(tree, environ, "report", "--json", *words)[1])
    return facts


def quality_rows(
    name: str, facts: dict[str, Any], *, float_min: float, params_min: float
) -> list[Row]:
    """Turn a run's facts into rows: float accuracy, parameters, drop; all on test."""
    quality, ratios = facts["quality"], facts["compression"]
    full, drop, n = quality["float"], quality["drop"], quality["drop"]["n"]
    value = full["value"]
    params, speed = ratios["params_ratio"], ratios["latency_ratio_interval"]
    return [
        Row(
            f"{name}: float accuracy on test",
            value,
            full["low"],
            full["high"],
            "1",
            n,
            f">= {float_min}",
            value >= float_min,
        ),
        Row(
            f"{name}: parameters, times fewer",
            params,
            params,
            params,
            "x",
            1,
            f">= {params_min:g}",
            params >= params_min,
        ),
        Row(
            f"{name}: accuracy drop on test, paired",
            drop["value"],
            drop["low"],
            drop["high"],
            "1",
            n,
            "<= 0.01",
            drop["value"] <= 0.01,
        ),
        Row(
            f"{name}: p50 latency, times less",
            speed["value"],
            speed["low"],
            speed["high"],
            "x",
            1,
            "> 1",
            speed["low"] > 1,
        ),
    ]


def quick(tree: Path, environ: dict[str, str]) -> list[Row]:
    """Time what a person waits for at the prompt."""
    helps = [fettle(tree, environ, "--help")[0] for _ in range(QUICK_RUNS)]
    wrong = ["run", "--set", "finetune.epoch_max=3"]
    errors = [fettle(tree, environ, *wrong, code=2)[0] for _ in range(QUICK_RUNS)]
    return [
        table.of_times("`fettle --help`", helps, 0.25),
        table.of_times("an error in params.yaml", errors, 0.5),
    ]


def fashion(tree: Path, environ: dict[str, str]) -> list[Row]:
    """Run all 70,000 images of Fashion-MNIST."""
    params = ["--params", "examples/fashion_mnist.yaml"]
    seconds, _ = fettle(tree, environ, "run", *params)
    facts = report(tree, environ, *params)
    peak = max(
        json.loads(path.read_text())["peak_memory_bytes"]
        for path in tree.glob(".fettle/ws/*/records/*.json")
        if not path.name.endswith(".error.json")
    )
    rows = quality_rows("fashion_mnist", facts, float_min=0.92, params_min=1)
    shipped = facts["quality"]["compressed"]
    return [
        table.of_times("main job on Fashion-MNIST, 70,000 images", [seconds], 3600),
        *rows,
        Row(
            "fashion_mnist: shipped accuracy on test",
            shipped["value"],
            shipped["low"],
            shipped["high"],
            "1",
            shipped["n"],
            ">= 0.92",
            shipped["value"] >= 0.92,
        ),
        Row(
            "fashion_mnist: peak memory of a stage",
            peak / 2**30,
            peak / 2**30,
            peak / 2**30,
            "GiB",
            1,
            "<= 4",
            peak <= 4 * 2**30,
        ),
    ]


def photos(tree: Path, environ: dict[str, str], folder: Path) -> list[Row]:
    """Run the line on a folder of photos."""
    words = ["--params", "examples/photos.yaml"]
    seconds, _ = fettle(tree, environ, "run", *words, "--data", str(folder))
    facts = report(tree, environ, *words)
    return [
        table.of_times("main job on photos", [seconds], 900),
        *quality_rows("photos", facts, float_min=0.985, params_min=1),
    ]


def main() -> None:
    """Measure the chosen parts in one clone; merge the rows into benchmarks/results/main.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=["setup", "digits", "quick"])
    parser.add_argument("--photos", type=Path, help="folder of photos, one folder a class")
    chosen = parser.parse_args()
    command = "python -m benchmarks.main " + " ".join(["--only", *chosen.only])
    with clone() as (tree, environ):
        rows = set_up(tree, environ)
        rows = rows if "setup" in chosen.only else []
        if "digits" in chosen.only:
            rows += digits(tree, environ)
        if "quick" in chosen.only:
            rows += quick(tree, environ)
        if "fashion" in chosen.only:
            rows += fashion(tree, environ)
        if "photos" in chosen.only:
            if chosen.photos is None:
                parser.error("--only photos needs --photos FOLDER")
            rows += photos(tree, environ, chosen.photos)
    table.write("main", command, rows)


if __name__ == "__main__":
    main()
