"""Measure fine-tuning on photos: our default, a plain script, the frozen backbone's probe.

    python -m benchmarks.finetune --data FOLDER [--only clothing …] [--few | --per-class N]

FOLDER holds clothing/ and cifar10/ with their own train, validation and test folders and flowers/
with one folder a class. Everything is chosen inside the training images: ours by its choice images,
the plain script's rate by a tenth of them (never less: it then trains on all). Each row says how
often its test rows have judged, by the runs that benchmarks/results/finetune.json holds.
Seconds are of the processor (user and system), not of a clock: it may run beside other work. With
`--work FOLDER` a killed command goes on where it was, in the middle of our own training too (whose
seconds are then those of its last part).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks import benchmark_row, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.finetune_rows import data_sets, plain_script
from benchmarks.finetune_rows.data_sets import DataSet
from benchmarks.finetune_rows.plain_script import Photos
from fettle import manifest, plugins
from fettle.data import choice_images, split_reader
from fettle.data.split_reader import Images
from fettle.evaluation import accuracy_statistics
from fettle.models import export_onnx
from fettle.params import Params
from fettle.preprocessing import Floats

Bools = npt.NDArray[np.bool_]
NAME = "finetune"
SEEDS = (20, 21, 22)
FEW_DRAWS, FEW_PER_CLASS = 20, 20
GOALS = {"clothing": 0.90, "cifar10": 0.92}
OVER_PROBE = {"clothing": 0.07, "flowers": 0.03}


@dataclass(frozen=True, slots=True)
class Judged:
    """One arm's answers to the test rows for each seed, and the processor's seconds it took."""

    right: list[Bools]
    seconds: list[float]

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of each seed."""
        return [float(one.mean()) for one in self.right]


def main() -> None:
    """Measure the chosen sets; merge them into benchmarks/results/finetune.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=sorted(data_sets.DATA), metavar="SET")
    parser.add_argument("--few", action="store_true", help="20 images a class instead of all")
    parser.add_argument("--per-class", type=int, help="train on so many images a class")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--work", type=Path, help="keep what was trained here, and go on from it")
    chosen = parser.parse_args()
    origin = row_origin.take(row_origin.command_line("benchmarks.finetune"))
    with tempfile.TemporaryDirectory() as thrown_away:
        home = chosen.work.resolve() if chosen.work else Path(thrown_away)
        for name in chosen.only or data_sets.DATA:
            one = data_sets.prepare(name, chosen.data, home)
            if chosen.per_class:
                part = home / f"{name}-part"
                one = data_sets.few(one, part, per_class=chosen.per_class, seed=chosen.seeds[0])
            rows = of_few(one, home) if chosen.few else of_all(one, home, chosen.seeds)
            for row in rows:
                table.write(NAME, [row], origin, quiet=True)
                table.show([row])
                print(row.note, flush=True)


def of_all(one: DataSet, home: Path, seeds: Sequence[int]) -> Iterator[BenchmarkRow]:
    """Train on all training images: three arms, every seed, and what lies between them."""
    arms: dict[str, Judged] = {
        name: Judged([], []) for name in ("default", "plain script", "probe")
    }
    rate = None
    for seed in seeds:
        out = home / f"{one.name}-{seed}"
        started = time.process_time()
        params = data_sets.ours(one, out, seed=seed)
        seconds = time.process_time() - started
        test = one.test(params)
        right = partial(_onnx_right, out / "model.onnx", params, test)
        _keep(arms["default"], out / "default.npz", right, seconds)
        train = split_reader.images(one.inputs(out), params, "train")
        rate = rate or _kept_rate(home / f"{one.name}-rate.json", params, train, seed)
        for name, with_training in (("plain script", True), ("probe", False)):
            model = partial(_plain, params, train, rate=rate if with_training else None, seed=seed)
            right = partial(_module_right, model, params, test)
            _keep(arms[name], out / f"{name}.npz", right)
    yield from _rows(one, arms, seeds, f"the plain script's rate is {rate:g}")


def _keep(arm: Judged, path: Path, judge: Callable[[], Bools], seconds: float = 0.0) -> None:
    """Add what an arm got right and its seconds; a file of an earlier try is not judged again."""
    if not path.is_file():
        started = time.process_time()
        right = judge()
        np.savez(path, right=right, seconds=seconds + time.process_time() - started)
    with np.load(path) as kept:
        arm.right.append(kept["right"])
        arm.seconds.append(float(kept["seconds"]))


def _kept_rate(path: Path, params: Params, train: Images, seed: int) -> float:
    """Choose the plain script's rate, once."""
    if not path.is_file():
        manifest.write_json(path, _plain_rate(params, train, seed))
    return float(json.loads(path.read_text()))


def _onnx_right(model: Path, params: Params, images: Images) -> Bools:
    return _right(_onnx_answers(model, params, images), images)


def _module_right(model: Callable[[], nn.Module], params: Params, images: Images) -> Bools:
    return _right(_module_answers(model(), params, images), images)


def _rows(
    one: DataSet, arms: dict[str, Judged], seeds: Sequence[int], note: str
) -> Iterator[BenchmarkRow]:
    """Give a row an arm, and the differences that goals stand on, paired over the same images."""
    count = len(arms["default"].right[0])
    told = f"{count:,} test rows {one.digest()[:12]}, which have judged {_times(one)} times; {note}"
    for name, arm in arms.items():
        found = arm.accuracies
        goal = GOALS.get(one.label) if name == "default" else None
        yield benchmark_row.measured(
            f"{one.label}: accuracy, {name}",
            statistics.median(found),
            low=min(found),
            high=max(found),
            unit="1",
            n=len(found),
            seeds=seeds,
            goal=f">= {goal:g}" if goal else "",
            holds=statistics.median(found) >= goal if goal else None,
            note=f"{told}; {statistics.median(arm.seconds):.0f} s of the processor",
        )
    for rival, least in (("plain script", 0.0), ("probe", OVER_PROBE.get(one.label, 0.0))):
        yield _difference(one, arms["default"], arms[rival], rival, least, seeds, told)


def _difference(
    one: DataSet,
    ours: Judged,
    theirs: Judged,
    rival: str,
    least: float,
    seeds: Sequence[int],
    told: str,
) -> BenchmarkRow:
    """Compare two arms on the same images: the median seed with Tango's interval."""
    gaps = [float(a.mean() - b.mean()) for a, b in zip(ours.right, theirs.right, strict=True)]
    middle = sorted(range(len(gaps)), key=lambda at: gaps[at])[len(gaps) // 2]
    drop = accuracy_statistics.paired_drop(theirs.right[middle], ours.right[middle])
    low = None if drop.high is None else -drop.high
    high = None if drop.low is None else -drop.low
    behind = high is not None and high < 0
    return benchmark_row.measured(
        f"{one.label}: accuracy, default over {rival}",
        gaps[middle],
        low=low,
        high=high,
        unit="1",
        n=len(gaps),
        seeds=seeds,
        goal=f">= {least:g}" if least else "not behind it (95 %)",
        holds=gaps[middle] >= least if least else not behind,
        note=f"{told}; each seed {', '.join(f'{gap:+.4f}' for gap in gaps)}",
    )


def of_few(one: DataSet, home: Path) -> Iterator[BenchmarkRow]:
    """Train on 20 images a class, over 20 draws: the default must not fall below the probe."""
    gaps = []
    for seed in range(FEW_DRAWS):
        part = data_sets.few(one, home / f"few-{seed}", per_class=FEW_PER_CLASS, seed=seed)
        out = home / f"few-{seed}-out"
        params = data_sets.ours(part, out, seed=seed)
        test = one.test(params)
        train = split_reader.images(part.inputs(out), params, "train")
        model = _plain(params, train, rate=None, seed=seed)
        right = _right(_onnx_answers(out / "model.onnx", params, test), test)
        gaps.append(float(right.mean() - _right(_module_answers(model, params, test), test).mean()))
    mean, error = statistics.mean(gaps), statistics.stdev(gaps) / len(gaps) ** 0.5
    yield benchmark_row.measured(
        f"{one.name}: accuracy, default over probe, {FEW_PER_CLASS} images a class",
        mean,
        low=mean - 1.96 * error,
        high=mean + 1.96 * error,
        unit="1",
        n=len(gaps),
        seeds=range(FEW_DRAWS),
        goal="not behind it (95 %)",
        holds=mean + 1.96 * error >= 0,
        note=f"test rows {one.digest()[:12]} have judged {_times(one)} times; draws from "
        f"{min(gaps):+.4f} to {max(gaps):+.4f}",
    )


def _times(one: DataSet) -> int:
    """Count how often the rows of a set have judged, this time included."""
    own = [
        row for row in table.read(table.RESULTS / f"{NAME}.json") if row.what.startswith(one.name)
    ]
    return 1 + max((1 + len(row.history) for row in own), default=0)


def _photos(params: Params, images: Images) -> Photos:
    normalised = split_reader.preprocess(params).normalise(images.pixels[:])
    inputs = torch.from_numpy(normalised).contiguous(memory_format=torch.channels_last)
    return Photos(inputs, images.labels)


def _plain(params: Params, train: Images, *, rate: float | None, seed: int) -> nn.Module:
    """Run the plain script; without a rate its probe alone."""
    family = plugins.resolve("families", params.finetune.family, where="finetune.family")
    torch.manual_seed(seed)
    model: nn.Sequential = family.build(
        family.Params.model_validate(params.finetune.options),
        classes=len(train.classes),
        channels=params.preprocess.channels,
        size_px=params.preprocess.side_px,
        project=Path(),
    ).to(memory_format=torch.channels_last)
    head = model[-1]
    assert isinstance(head, nn.Linear), "the families of this benchmark end in one"
    photos = _photos(params, train)
    plain_script.probe(model[:-1], head, photos)
    return model if rate is None else plain_script.train(model, photos, rate=rate, seed=seed)


def _plain_rate(params: Params, train: Images, seed: int) -> float:
    """Choose the plain script's rate by whole trainings, on a tenth of the training images."""
    learnt, choice = choice_images.hold_out(train, fraction=0.1, seed=seed)
    found = {
        rate: _right(
            _module_answers(_plain(params, learnt, rate=rate, seed=seed), params, choice), choice
        ).mean()
        for rate in plain_script.RATES
    }
    return max(found, key=lambda rate: (found[rate], -rate))


def _right(logits: Floats, images: Images) -> Bools:
    return accuracy_statistics.correct(logits, images.labels)


def _module_answers(model: nn.Module, params: Params, images: Images) -> Floats:
    return plain_script.answers(model, _photos(params, images).inputs)


def _onnx_answers(model: Path, params: Params, images: Images) -> Floats:
    normalise = split_reader.preprocess(params).normalise
    parts = [images.pixels[at : at + 128] for at in range(0, len(images.pixels), 128)]
    return np.concatenate([export_onnx.run_onnx(model, normalise(part)) for part in parts])


if __name__ == "__main__":
    main()
