"""Latency comparison in the same rounds, with the float model in every runtime here.

The float model's best runtime is what a compressed file has to beat: a speed-up over a slow way of
running the same network is none. What the runtime's own graph optimisation buys is timed
apart, on the float model and on the candidate, so that compression is not credited with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np

from fettle import plugins
from fettle.data import split_reader
from fettle.errors import ModelError
from fettle.hardware import latency_measurement
from fettle.hardware.runtimes import Session, runs_beside_fettle
from fettle.lazy_array import RowArray
from fettle.measure import Measure
from fettle.params import Params
from fettle.preprocessing import Floats

PLAIN_RUNTIME = "ort"
FLOAT = "float_"  # a contender's name: the float model in another runtime than PLAIN_RUNTIME
UNOPTIMISED = "_unoptimised"  # after a contender's name: itself, with graph optimisation off
# contender: its measure
OPTIMISED = {
    "baseline": "baseline_speedup_by_optimisation",
    "candidate": "speedup_by_optimisation",
}
QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


@runtime_checkable
class Bindable(Protocol):
    """A session in another process: a batch is left there, so that moving it is not timed."""

    def bind(self, batch: Floats) -> Callable[[], object]:
        """Leave a batch there; the call that comes back has a clock of its own."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One model file with the runtime that loads it."""

    session: Session
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LatencyComparison:
    """The measures of one evaluation, and the runtime in which the float model is fastest."""

    measures: dict[str, Measure]
    best_float: str


def open_float_models(model: Path, *, threads: int) -> dict[str, Contender]:
    """Open the float model in each runtime that is here beside ONNX Runtime, and takes it."""
    contenders = {}
    for name in plugins.names("runtimes"):
        runtime = plugins.resolve("runtimes", name, where="the float model")
        if name == PLAIN_RUNTIME or not runs_beside_fettle(runtime) or not runtime.available().ok:
            continue  # an isolated toolchain is no rival: installing one changes its targets alone
        try:
            session = runtime.open(model, threads=threads)
        except ModelError:
            continue  # it cannot be the best runtime of a model it does not take
        contenders[f"{FLOAT}{name}"] = Contender(session, model.stat().st_size)
    return contenders


def open_unoptimised(
    files: Mapping[str, tuple[ModuleType, Path]], *, threads: int
) -> dict[str, Contender]:
    """Open the baseline and the candidate with graph optimisation off, where the runtime can."""
    contenders = {}
    for name, (runtime, path) in files.items():
        if name in OPTIMISED and hasattr(runtime, "unoptimised"):
            session = runtime.unoptimised(path, threads=threads)
            contenders[f"{name}{UNOPTIMISED}"] = Contender(session, path.stat().st_size)
    return contenders


def optimisation_speedup(
    single: Mapping[str, latency_measurement.Times], *, seed: int
) -> dict[str, Measure]:
    """Return what graph optimisation buys: time with it off over time with it on, same rounds.

    `speedup_unoptimised` is the candidate's speed-up over the baseline with it off in both.
    """
    off = {n: single[f"{n}{UNOPTIMISED}"] for n in OPTIMISED if f"{n}{UNOPTIMISED}" in single}
    speedups = {
        OPTIMISED[name]: latency_measurement.speedup(times, single[name], seed=seed)
        for name, times in off.items()
    }
    if len(off) == len(OPTIMISED):
        speedups["speedup_unoptimised"] = latency_measurement.speedup(
            off["baseline"], off["candidate"], seed=seed
        )
    return speedups


def measure_latency(
    contenders: Mapping[str, Contender],
    params: Params,
    *,
    pixels: RowArray[np.uint8],
    float_pixels: RowArray[np.uint8],
) -> LatencyComparison:
    """Time "baseline", "plain", "candidate" and the float models, at batch 1 and at a batch.

    The float model is timed on `float_pixels`, which are larger where the candidate takes fewer.
    """
    section, seed = params.evaluate, params.seed
    normalise = split_reader.preprocess(params).normalise

    def timed(
        names: Collection[str], images: int, rounds: int
    ) -> dict[str, latency_measurement.Times]:
        small, large = (
            normalise(np.resize(rows[:images], (images, *rows.shape[1:])))
            for rows in (pixels, float_pixels)
        )
        runs = {
            name: bind(contenders[name].session, large if _is_float(name) else small)
            for name in names
        }
        return latency_measurement.interleave(runs, rounds=rounds, seed=seed)

    judged = [name for name in contenders if not name.endswith(UNOPTIMISED)]
    single = timed(judged, 1, section.rounds)
    best = min(_floats(single), key=lambda name: (np.median(single[name]), name))
    single, gain = latency_measurement.measure_until_significant(
        single, lambda rounds: timed(judged, 1, rounds), slow=best, fast="candidate", seed=seed
    )
    # a batch takes many times longer, and varies less: a quarter of the rounds is enough for a p50
    fewer = max(20, section.rounds // 4)
    batched = timed(tuple(OPTIMISED), section.batch_images, fewer)
    # not among the judged: EfficientNet-Lite0 took 9 times longer so
    off = [name for name in contenders if name.endswith(UNOPTIMISED)]
    optimised = optimisation_speedup(timed([*OPTIMISED, *off], 1, fewer), seed=seed)
    ours = single["candidate"]
    measures = (
        latency_quantiles(single, best)
        | optimised
        | {
            "speedup": latency_measurement.speedup(single["baseline"], ours, seed=seed),
            "speedup_over_best_float": gain,
            "speedup_over_plain": latency_measurement.speedup(single["plain"], ours, seed=seed),
            "speedup_batch": latency_measurement.speedup(
                batched["baseline"], batched["candidate"], seed=seed
            ),
            "throughput_images_per_s": latency_measurement.throughput(
                batched["candidate"], section.batch_images
            ),
        }
    )
    return LatencyComparison(
        measures, PLAIN_RUNTIME if best == "baseline" else best.removeprefix(FLOAT)
    )


def latency_quantiles(
    single: Mapping[str, latency_measurement.Times], best: str
) -> dict[str, Measure]:
    """Return p50, p95 and p99 of the candidate, the baseline, the plain form and the best float."""
    shown = {"candidate": "", "baseline": "baseline_", "plain": "plain_"}
    taken = [(prefix, single[name]) for name, prefix in shown.items()]
    return {
        f"{prefix}latency_{label}_ms": latency_measurement.quantile(times, share)
        for prefix, times in (*taken, ("best_float_", single[best]))
        for label, share in QUANTILES
    }


def _floats(single: Mapping[str, latency_measurement.Times]) -> list[str]:
    return [name for name in single if _is_float(name)]


def _is_float(contender: str) -> bool:
    name = contender.removesuffix(UNOPTIMISED)
    return name == "baseline" or name.startswith(FLOAT)


def bind(session: Session, batch: Floats) -> Callable[[], object]:
    """Return a call that runs `batch`; in a toolchain's worker, one that can be timed there."""
    if isinstance(session, Bindable):
        return session.bind(batch)
    return lambda: session.run(batch)
