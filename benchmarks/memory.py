"""Measure each stage's peak memory on few photos and on ten times as many: it must not grow.

    python -m benchmarks.memory [--images 2000 20000] [--side 64] [--runs 2]
    python -m benchmarks.memory --photos 200000 --side 224

The photos are made here: JPEGs of a few hundred drawings, each with a comment of its own. The first
form runs every stage of the line on both sets, with the same small network and the same batch, and
the goal is 100 MiB between them. The second runs ingest, validate and 50 steps of training on one
set and says what they take. A peak is the largest resident set of the stage's own process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import benchmark_row, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.memory_rows.photo_set import make_photos
from fettle import params as params_file
from fettle.cli.project_template import make_project

NAME = "memory"
MEBIBYTE = 2**20
GOAL_MIB = 100.0
TARGETS = ("x86_ort_fp32", "x86_ort_int8")
# The photos' own params, with a network that trains in a minute: the images are what is measured.
SETTINGS = (
    "ingest.split={train: 0.8, validation: 0.1, test: 0.1}",
    "finetune.family=small_cnn",
    "finetune.options={width: 24, depth: 1, blocks: 4, stem_stride: 2}",
    "finetune.epochs_max=1",
    "compress.recipe=[{use: prune, keep_fraction: 0.25, recover_epochs: 1}]",
    "compress.budget.drop_max=0.2",
    "export.calibrate=minmax",
    f"targets=[{', '.join(TARGETS)}]",
    "evaluate.rounds=20",
)
LINE = (
    *("inputs", "ingest", "validate", "finetune", "latency_table", "compress"),
    *(f"{stage} {target}" for stage in ("export", "evaluate") for target in TARGETS),
    *("select", "verdict", "package"),
)
NOT_SHOWN = ("inputs",)  # it reads digests alone, and seals nothing


def main() -> None:
    """Run the form that is asked for; merge its rows into benchmarks/results/memory.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", nargs=2, type=int, default=(2000, 20_000))
    parser.add_argument("--runs", type=int, default=2, help="of the line, on each of the two")
    parser.add_argument("--photos", type=int, help="one large set: ingest, validate, 50 steps")
    parser.add_argument("--side", type=int, default=64, help="of a photo and of the model, in px")
    parser.add_argument("--folder", type=Path, help="where the photos and projects are made")
    chosen = parser.parse_args()
    origin = row_origin.take(row_origin.command_line("benchmarks.memory"))
    with tempfile.TemporaryDirectory(dir=chosen.folder) as home:
        if chosen.photos:
            rows = large_set(Path(home), chosen.photos, chosen.side)
        else:
            rows = whole_line(Path(home), chosen.images, chosen.side, runs=chosen.runs)
        table.write(NAME, list(rows), origin)


def whole_line(
    home: Path, counts: Sequence[int], side_px: int, *, runs: int
) -> Iterator[BenchmarkRow]:
    """Run every stage on each number of photos: a row a stage, the growth between the two."""
    peaks = [
        [run_line(home / f"{run}-{count}", count, side_px) for count in counts]
        for run in range(runs)
    ]
    for stage in LINE:
        if stage not in NOT_SHOWN:
            pairs = [(few[stage], many[stage]) for few, many in peaks]
            yield growth(stage, pairs, counts=counts, side_px=side_px)


def growth(
    stage: str,
    pairs: Sequence[tuple[float | str, float | str]],
    *,
    counts: Sequence[int],
    side_px: int,
) -> BenchmarkRow:
    """Make the row of a stage: how much its peak grew in each run, in MiB; or what failed."""
    what = f"{stage}: peak memory at {counts[1]:,} photos of {side_px} px above {counts[0]:,}"
    goal = f"<= {GOAL_MIB:g}"
    failed = [one for pair in pairs for one in pair if isinstance(one, str)]
    if failed:
        return benchmark_row.not_measured(what, "MiB", goal, why=failed[0])
    found = [(float(few), float(many)) for few, many in pairs]
    grown = [many - few for few, many in found]
    least, most = (max(one) for one in zip(*found, strict=True))
    return benchmark_row.measured(
        what,
        statistics.median(grown),
        low=min(grown),
        high=max(grown),
        unit="MiB",
        n=len(grown),
        seeds=(20,),
        goal=goal,
        holds=max(grown) <= GOAL_MIB,
        note=f"up to {least:.0f} MiB at {counts[0]:,}, {most:.0f} MiB at {counts[1]:,}",
    )


def run_line(home: Path, count: int, side_px: int) -> dict[str, float | str]:
    """Run the stages on so many photos; return each one's peak in MiB, or why there is none."""
    tree = make_tree(home, count, side_px)
    found: dict[str, float | str] = {}
    for stage in LINE:
        found[stage] = run_stage(tree, stage)
        print(f"{count:,} photos, {stage}: {found[stage]}", file=sys.stderr, flush=True)
    return found


def make_tree(home: Path, count: int, side_px: int) -> Path:
    """Make the photos and a project that reads them; return the project."""
    photos, tree = home / "photos", home / "project"
    make_photos(photos, count, side_px)
    make_project(tree, data=photos)
    file = tree / "params.yaml"
    doc = params_file.compose(file, [f"preprocess.size_px={side_px}", *SETTINGS])
    params_file.check(doc, file)
    from ruamel.yaml import YAML

    with file.open("w") as handle:
        YAML(typ="rt").dump(doc, handle)
    return tree


def run_stage(tree: Path, stage: str) -> float | str:
    """Run one stage in a process of its own; return its peak in MiB, or its last words."""
    name, _, target = stage.partition(" ")
    words = [sys.executable, "-P", "-m", "fettle.cli.main", "stage", *stage.split()]
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    record = (
        tree / "records" / f"{name}@{target}.json" if target else tree / "records" / f"{name}.json"
    )
    if not record.is_file():  # of `inputs`, which seals nothing
        return 0.0
    return float(json.loads(record.read_text())["peak_memory_bytes"]) / MEBIBYTE


def large_set(home: Path, count: int, side_px: int) -> Iterator[BenchmarkRow]:
    """Run ingest, validate and 50 steps of training on one large set: peaks and seconds."""
    tree = make_tree(home, count, side_px)
    shutil.rmtree(tree / "report", ignore_errors=True)
    for stage in ("inputs", "ingest", "validate", "50 training steps"):
        started = time.monotonic()
        peak = training_steps(tree) if stage.startswith("50") else run_stage(tree, stage)
        seconds = time.monotonic() - started
        print(f"{stage}: {peak}, {seconds:.0f} s", file=sys.stderr, flush=True)
        if stage in NOT_SHOWN:
            continue
        what = f"{stage}: peak memory at {count:,} photos of {side_px} px"
        if isinstance(peak, str):
            yield benchmark_row.not_measured(what, "MiB", "", why=peak)
            continue
        note = f"{seconds:.0f} s"
        yield benchmark_row.measured(what, peak, unit="MiB", n=1, seeds=(20,), note=note)


def training_steps(tree: Path) -> float | str:
    """Take 50 steps of training in a process of its own; return its peak in MiB."""
    words = [sys.executable, "-P", "-m", "benchmarks.memory_rows.training_steps", str(tree)]
    environ = {**os.environ, "PYTHONPATH": str(table.RESULTS.parent.parent)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environ)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    print(done.stderr.strip(), file=sys.stderr)
    return float(done.stdout)


if __name__ == "__main__":
    main()
