"""Shrinking a large network against never having had it: small nets trained from scratch.

Each of five sizes trains alone, with the data set's own augmentation and schedule, for as many
seconds as fine-tuning the large network and compressing it took; its learning rate is the better of
two, on validation. All run as fp32 in ONNX Runtime. Ours are a few recipes, mild to harsh: students
taught by the large network, and the large network or a student cut.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.compression import benchmark_recipes
from benchmarks.compression.benchmark_recipes import Recipe
from benchmarks.context import Context, Prepared
from fettle.evaluation import accuracy_statistics
from fettle.hardware import latency_measurement
from fettle.hardware.runtimes import ort
from fettle.measure import Measure

WHAT = "our front against five small nets trained from scratch for as long"
GOAL = "no small net is as accurate and as fast; >= 1.5x lower latency at equal accuracy on photos"

LEARNING_RATES = (2e-3, 8e-3)
# Five sizes a set. Photos get the stem that photos need: without it they have no chance.
SIZES: dict[str, tuple[dict[str, int], ...]] = {
    "digits": (
        {"width": 8, "depth": 1, "blocks": 4},
        {"width": 16, "depth": 1, "blocks": 4},
        {"width": 16, "depth": 2, "blocks": 4},
        {"width": 32, "depth": 1, "blocks": 4},
        {"width": 32, "depth": 2, "blocks": 4},
    ),
    "photos": tuple(
        {"width": width, "depth": depth, "blocks": 5, "stem_stride": 4}
        for width, depth in ((8, 1), (12, 1), (16, 1), (24, 1), (16, 2))
    ),
}
STUDENT_EPOCHS = {"digits": 150, "photos": 80}
# On digits the large network cut; on photos, where at 96 px that takes 20 minutes and more (and
# each small net would be owed as much), a student of it cut.
CUTS: dict[str, tuple[Recipe, ...]] = {
    "digits": tuple(
        (
            {"use": "depth", "remove": remove, "recover_epochs": 4},
            {"use": "prune", "keep_fraction": keep, "steps": 2, "importance": "taylor"},
            {"use": "distil", "epochs": 16},
        )
        for remove, keep in ((9, 0.375), (12, 0.25))
    ),
    "photos": tuple(
        (
            {"use": "student", "options": SIZES["photos"][2], "epochs": STUDENT_EPOCHS["photos"]},
            {
                "use": "prune",
                "keep_fraction": keep,
                "steps": steps,
                "importance": "taylor",
                "recover_epochs": 4,
            },
            {"use": "distil", "epochs": 40, "learning_rate": 4e-3},
        )
        for keep, steps in ((0.4, 3), (0.6, 2))
    ),
}
STUDENTS: dict[str, tuple[dict[str, int], ...]] = {
    "digits": (
        {"width": 8, "depth": 1, "blocks": 4},
        {"width": 16, "depth": 1, "blocks": 4},
        {"width": 32, "depth": 1, "blocks": 5},
    ),
    "photos": ({"width": 4, "depth": 1, "blocks": 5, "stem_stride": 4},),
}
GOALS = {"photos": 1.5}
EPOCHS_MAX = 400  # beyond it a small set has nothing left to teach


@dataclass(frozen=True, slots=True)
class Point:
    """One model on the two axes; latency is the median of the rounds."""

    name: str
    accuracy: Measure
    latency_ms: float


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure each data set but Fashion-MNIST, whose float model is itself a small net."""
    for name in [name for name in context.data if name != "fashion"]:
        yield from _of(context, context.prepare(name))


def _of(context: Context, one: Prepared) -> list[BenchmarkRow]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        made = [
            benchmark_recipes.make(one, recipe, place / f"o{at}")
            for at, recipe in enumerate(ours(one.name))
        ]
        seconds = _finetune_seconds(one) + max(each.seconds for each in made)
        files = {f"recipe {at + 1}": each.onnx for at, each in enumerate(made)}
        for index, size in enumerate(SIZES[one.name]):
            files[f"scratch {index + 1}"] = _from_scratch(
                one, size, seconds, place / f"s{index}.onnx"
            )
        points = _measure(context, one, files)
    front = [point for point in points if point.name.startswith("recipe")]
    goal = GOALS.get(one.name, 1.0)
    rows = [_row(one, point, front, goal, seconds) for point in points if point not in front]
    return [*rows, *(_listed(one, point) for point in points)]


def ours(name: str) -> list[Recipe]:
    """List the data set's recipes: students of the large network, then what is cut."""
    students: list[Recipe] = [
        ({"use": "student", "options": options, "epochs": STUDENT_EPOCHS[name]},)
        for options in STUDENTS[name]
    ]
    return [*students, *CUTS[name]]


def _row(
    one: Prepared, small: Point, ours: Sequence[Point], goal: float, seconds: float
) -> BenchmarkRow:
    """Compare one small net with the fastest of ours that is at least as accurate."""
    what = f"{one.name}: latency of {small.name} over ours at equal accuracy"
    equal = [point for point in ours if point.accuracy.value >= small.accuracy.value]
    if not equal:
        best = max(point.accuracy.value for point in ours)
        reason = f"none of ours is as accurate: {best:.4f}, {small.accuracy.value:.4f} from scratch"
        return benchmark_row.without_value(
            what, "x", f">= {goal:g}", n=len(ours), seeds=[one.params.seed], reason=reason
        )
    fastest = min(equal, key=lambda point: point.latency_ms)
    gain = small.latency_ms / fastest.latency_ms
    note = f"{fastest.name}; {seconds:.0f} s of training for each small net"
    return benchmark_row.measured(
        what,
        gain,
        unit="x",
        n=1,
        seeds=[one.params.seed],
        goal=f">= {goal:g}",
        holds=gain >= goal,
        note=note,
    )


def _listed(one: Prepared, point: Point) -> BenchmarkRow:
    note = f"p50 {point.latency_ms:.4f} ms in ONNX Runtime, fp32"
    what = f"{one.name}: accuracy on test of {point.name}"
    return benchmark_row.of_measure(what, point.accuracy, seeds=[one.params.seed], note=note)


def _measure(context: Context, one: Prepared, files: dict[str, Path]) -> list[Point]:
    test = one.images("test")
    single = one.batch(one.images("test", most=1))
    sessions = {name: ort.open(path, threads=context.threads) for name, path in files.items()}
    times = latency_measurement.interleave(
        {name: lambda s=session: s.run(single) for name, session in sessions.items()},
        rounds=context.rounds,
        seed=context.seed,
    )
    return [
        Point(
            name,
            accuracy_statistics.accuracy(benchmark_recipes.answers(path, one, test), test.labels),
            float(np.median(times[name])),
        )
        for name, path in files.items()
    ]


def _finetune_seconds(one: Prepared) -> float:
    """Time one epoch of fine-tuning the large network; multiply by the epochs it took."""
    from benchmarks.compression import benchmark_training

    return _epoch_seconds(
        one, benchmark_training.float_model(one)
    ) * benchmark_training.epochs_taken(one)


def _from_scratch(one: Prepared, size: dict[str, int], seconds: float, out: Path) -> Path:
    """Train one small net within `seconds` over all learning rates; write the better as ONNX."""
    from benchmarks.compression import benchmark_training
    from fettle.models import export_onnx

    epoch = _epoch_seconds(one, benchmark_training.build(one, "small_cnn", size))
    epochs = max(1, min(EPOCHS_MAX, int(seconds / len(LEARNING_RATES) / epoch)))
    found = []
    for rate in LEARNING_RATES:
        model = benchmark_training.build(one, "small_cnn", size)
        found.append((benchmark_training.train(one, model, epochs=epochs, rate=rate), rate, model))
    _, _, best = max(found, key=lambda each: each[:2])
    export_onnx.export(best, channels=one.shape[0], size_px=one.shape[1], out=out)
    return out


def _epoch_seconds(one: Prepared, model: Any) -> float:  # Any: nn.Module
    """Time one epoch, after one that warms torch up; the model is spent."""
    from benchmarks.compression import benchmark_training

    benchmark_training.train(one, model, epochs=1, rate=1e-3)
    started = time.perf_counter()
    benchmark_training.train(one, model, epochs=1, rate=1e-3)
    return time.perf_counter() - started
