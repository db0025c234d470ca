"""Int8 alone, nothing pruned: ours against ONNX Runtime's own quantizer and NNCF's, same run.

Every rival gets the same float model, the same calibration images and one thread; all are timed in
the same rounds. Ours runs in both runtimes, NNCF's in OpenVINO (its own), ONNX Runtime's in ONNX
Runtime. The bound is Amdahl's: only the time spent in convolutions and linear layers can gain, by
four at most (AVX512-VNNI).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks import benchmark_row, toolbox
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.compression import benchmark_recipes
from benchmarks.context import Context, Prepared
from fettle.errors import ModelError
from fettle.evaluation import accuracy_statistics
from fettle.hardware import kernel_profile, latency_measurement
from fettle.hardware.isolated import isolated_worker
from fettle.hardware.isolated.toolchain import Limits
from fettle.hardware.runtimes import Session, openvino, ort
from fettle.measure import Measure
from fettle.quantize.quantizers import calibrated_int8

WHAT = "int8 alone, over the best fp32 runtime, and accuracy-controlled quantization's time"
GOAL = ">= the better of ONNX Runtime's and NNCF's int8; <= 0.5x NNCF's time at the same drop"

# its accuracy control runs the validation images again for each layer that it puts back
NNCF_LIMITS = Limits(seconds=3600)
NNCF_SCRIPT = Path(benchmark_recipes.__file__).with_name("nncf_script.py")
NNCF = ("nncf==3.4.0", "openvino==2026.4.1", "numpy==2.4.6", "onnx==1.23.2")
CALIBRATION_IMAGES, CONTROL_IMAGES, BATCH = 256, 1000, 32
DROP_MAX, TIME_MAX = 0.01, 0.5
# class: what is set beside the data set's own params
CLASSES: dict[str, tuple[str, ...]] = {
    "MobileNet class": (),
    "ResNet class": (
        "finetune.family=resnet",
        "finetune.options={depth: 20}",
        # from scratch: all layers at once; speed does not hang on the last points of accuracy
        "finetune.epochs_head=0",
        "finetune.unfreeze_every_epochs=0",
        "finetune.epochs_max=8",
    ),
}


@dataclass(frozen=True, slots=True)
class Made:
    """One int8 file: where it runs, and the seconds it took to make."""

    session: Session
    seconds: float


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Measure each class of network on each data set."""
    for name in context.data:
        for kind, overrides in CLASSES.items():
            try:
                yield from _of(context, context.prepare(name, *overrides), kind)
            except ModelError as err:
                what = f"{name}, {kind}: int8 alone"
                yield benchmark_row.not_measured(what, "x", GOAL, why=str(err))


def _of(context: Context, one: Prepared, kind: str) -> list[BenchmarkRow]:
    with tempfile.TemporaryDirectory() as name:
        folder, threads = Path(name), context.threads
        write_images(one, folder)
        floats = {
            f"{tool.__name__.rpartition('.')[2]} fp32": tool.open(one.onnx, threads=threads)
            for tool in (ort, openvino)
        }
        made = {
            **_ours(one, folder, threads),
            "ONNX Runtime's": _rivals_ort(one, folder, threads),
            "NNCF's": _rivals_nncf(one, folder, threads, drop_max=None),
        }
        controlled = _rivals_nncf(one, folder, threads, drop_max=DROP_MAX)
        out = folder / "minmax.onnx"
        seconds = tune(one, folder, out, calibrate="minmax")
        plain = Made(ort.open(out, threads=threads), seconds)
        sessions = {**floats, **{label: item.session for label, item in made.items()}}
        test = one.images("test")
        single = one.batch(one.images("test", most=1))
        times = latency_measurement.interleave(
            {label: _bind(session, single) for label, session in sessions.items()},
            rounds=context.rounds,
            seed=context.seed,
        )
        batch = one.batch(test)
        logits = {label: _answers(session, batch) for label, session in sessions.items()}
        logits["NNCF's, controlled"] = _answers(controlled.session, batch)
        logits["ours, minmax"] = _answers(plain.session, batch)
        best = min(floats, key=lambda label: float(np.median(times[label])))
        gains = {
            label: latency_measurement.speedup(times[best], times[label], seed=context.seed)
            for label in made
        }
        drops = {
            label: accuracy_statistics.drop("accuracy", logits[best], found, test.labels)
            for label, found in logits.items()
        }
        apart = accuracy_statistics.drop(
            "accuracy", logits["NNCF's, controlled"], logits["ours, minmax"], test.labels
        )
        title, seeds = f"{one.name}, {kind}", [one.params.seed, context.seed]
        return [
            *_speed_rows(title, best, gains, drops, seeds),
            _bound_row(title, one, gains["ours in ort"], threads, seeds),
            _time_row(title, plain, controlled, drops, apart, seeds),
        ]


def _speed_rows(
    title: str,
    best: str,
    gains: Mapping[str, Measure],
    drops: Mapping[str, Measure],
    seeds: Sequence[int],
) -> list[BenchmarkRow]:
    ours = {label: one for label, one in gains.items() if label.startswith("ours")}
    rivals = {label: one for label, one in gains.items() if label not in ours}
    to_beat = max(rivals, key=lambda label: rivals[label].value)
    rows = []
    for label, gain in gains.items():
        first = label == max(ours, key=lambda name: ours[name].value)
        goal = f">= {rivals[to_beat].value:.2f} ({to_beat})" if first else ""
        holds = gain.value >= rivals[to_beat].value
        drop = drops[label]
        note = f"over {best}; accuracy drops by {drop.value:.4f} (n = {drop.n})"
        what = f"{title}: int8 alone, {label}"
        rows.append(
            benchmark_row.of_measure(what, gain, seeds=seeds, goal=goal, holds=holds, note=note)
        )
    return rows


def _bound_row(
    title: str, one: Prepared, gain: Measure, threads: int, seeds: Sequence[int]
) -> BenchmarkRow:
    """Say how much of what int8 could gain by the float model's profile it gains."""
    profiler = ort.profile(one.onnx, threads=threads)
    batch = np.zeros((1, *one.shape), np.float32)
    for _ in range(50):
        profiler.run(batch)
    bound = kernel_profile.of_kernels(profiler.kernels()).int8_bound
    low, high = (None if end is None else end / bound for end in (gain.low, gain.high))
    measure = Measure(value=gain.value / bound, unit="1", n=gain.n, low=low, high=high)
    note = f"of {bound:.2f}x, ours in ort; over the best fp32"
    what = f"{title}: int8 alone, share of Amdahl's bound"
    return benchmark_row.of_measure(what, measure, seeds=seeds, note=note)


def _time_row(
    title: str,
    plain: Made,
    controlled: Made,
    drops: Mapping[str, Measure],
    apart: Measure,
    seeds: Sequence[int],
) -> BenchmarkRow:
    """Compare times at one method of calibration, NNCF's default: ours by measurement takes 3x.

    `apart` is what ours loses beside theirs, paired; the same is what its interval reaches 0 for.
    """
    seconds = plain.seconds
    ours, theirs = drops["ours, minmax"], drops["NNCF's, controlled"]
    ratio = seconds / controlled.seconds
    no_worse = apart.low is not None and apart.low <= 0
    note = (
        f"{seconds:.1f} s against {controlled.seconds:.1f} s; accuracy drops by {ours.value:.4f} "
        f"against {theirs.value:.4f} (n = {ours.n}; {apart.value:.4f} apart, {apart.low:.4f} to "
        f"{apart.high:.4f})"
    )
    return benchmark_row.of_measure(
        f"{title}: accuracy-controlled quantization, our time over NNCF's",
        Measure(value=ratio, unit="x", n=1),
        seeds=seeds,
        goal=f"<= {TIME_MAX:g}, same drop or better",
        holds=ratio <= TIME_MAX and no_worse,
        note=note,
    )


def _ours(one: Prepared, folder: Path, threads: int) -> dict[str, Made]:
    out = folder / "ours.onnx"
    seconds = tune(one, folder, out)
    tools = {"ort": ort, "openvino": openvino}
    return {
        f"ours in {name}": Made(tool.open(out, threads=threads), seconds)
        for name, tool in tools.items()
    }


def tune(
    one: Prepared,
    folder: Path,
    out: Path,
    *,
    model: Path | None = None,
    calibrate: Literal["auto", "minmax"] = "auto",
) -> float:
    """Quantize as stages/export.py does, with the images in `folder`; return the seconds.

    `model` is the float model unless it is given.
    """
    batches, held_out = read_images(folder)
    started = time.perf_counter()
    calibrated_int8.apply(
        model or one.onnx,
        out,
        batches=batches,
        held_out=held_out,
        calibrate=calibrate,
        weight_bits=8,
        disagreement_max=one.params.export.disagreement_max,
    )
    return time.perf_counter() - started


def read_images(folder: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Read what `write_images` left: batches to fit to, and images to measure the answers on."""
    images = np.load(folder / "calibration.npz")["images"]
    batches = [images[at : at + BATCH] for at in range(0, len(images), BATCH)]
    return batches, np.load(folder / "held_out.npz")["images"]


def _rivals_ort(one: Prepared, folder: Path, threads: int) -> Made:
    """Use ONNX Runtime's quantizer as its documentation says for x86: QDQ, U8S8, per channel."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    images = np.load(folder / "calibration.npz")["images"]

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter([{"input": images[at : at + 1]} for at in range(len(images))])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    started = time.perf_counter()
    quant_pre_process(str(one.onnx), str(folder / "pre.onnx"), skip_symbolic_shape=True)
    q.quantize_static(
        str(folder / "pre.onnx"),
        str(folder / "ort.onnx"),
        Reader(),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
    )
    seconds = time.perf_counter() - started
    return Made(ort.open(folder / "ort.onnx", threads=threads), seconds)


def _rivals_nncf(one: Prepared, folder: Path, threads: int, *, drop_max: float | None) -> Made:
    out = folder / ("nncf.xml" if drop_max is None else "nncf_controlled.xml")
    answer = isolated_worker.ask(
        "NNCF",
        toolbox.venv("nncf", NNCF),
        NNCF_SCRIPT,
        "quantize",
        {
            "model": str(one.onnx.resolve()),
            "calibration": str((folder / "calibration.npz").resolve()),
            "validation": str((folder / "validation.npz").resolve()),
            "out": str(out.resolve()),
            "drop_max": drop_max,
        },
        threads=threads,
        limits=NNCF_LIMITS,
    )
    return Made(openvino.open(out, threads=threads), float(answer["seconds"]))


def write_images(one: Prepared, folder: Path) -> None:
    """Hand out the images: ranges and order from training, the rival's control from validation."""
    train = one.images("train", most=2 * CALIBRATION_IMAGES)
    control = one.images("validation", most=CONTROL_IMAGES)
    parts = {
        "calibration": (one.batch(train)[:CALIBRATION_IMAGES], train.labels[:CALIBRATION_IMAGES]),
        "held_out": (one.batch(train)[CALIBRATION_IMAGES:], train.labels[CALIBRATION_IMAGES:]),
        "validation": (one.batch(control), control.labels),
    }
    for name, (images, labels) in parts.items():
        np.savez(folder / f"{name}.npz", images=images, labels=labels)


def _answers(session: Session, batch: np.ndarray) -> np.ndarray:
    parts = [session.run(batch[at : at + 64]) for at in range(0, len(batch), 64)]
    return np.concatenate(parts)


def _bind(session: Session, batch: np.ndarray) -> Callable[[], object]:
    return lambda: session.run(batch)
