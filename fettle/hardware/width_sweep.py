"""Width sweep: copies of a network timed at many widths, by the profiler and by the clock.

The widths are drawn by the seed: each copy has its own share of the channels, from all to an
eighth, and each width within it its own deviation, so that inputs and outputs of a layer vary
apart. All copies are loaded at once and take turns, so that drift of the machine hits all alike.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fettle.hardware import latency_measurement, onnx_width_scaling
from fettle.hardware.operator_cost_table import CostSample, NetworkTiming
from fettle.operator_shape import Operator

if TYPE_CHECKING:
    from onnx import ModelProto

Floats = npt.NDArray[np.float32]

LEARNT = 14  # a place has four terms; more clones moved the error by under a point here
LEARNT_MIN = 7  # one more than a place needs (latency_fit.SAMPLES_MIN)
# Loading takes most of the time: ONNX Runtime loads EfficientNet-Lite0 in 0.05 s, OpenVINO its int8
# form in 0.6 s, and each copy is loaded twice. A slow one is learnt from fewer copies.
LOADING_S = 6.0
CHECKED = (0.75, 0.5, 0.25)  # widths of the networks the table is judged on, and two drawn ones
CHECKED_DRAWN = 2
SHARE_MIN = 1 / 8
DEVIATION = 0.4  # of a width from its copy's share
TURNS = 10  # of each copy under the profiler
# Runs a turn: the first finds the caches full of another copy, and a served model does not. With
# two of three warm the median is a warm time; single runs a turn predicted 20 % too much.
RUNS_A_TURN = 3


class TimedWidth(Protocol):
    """Timed width, as a runtime's `open` returns it: see fettle.hardware.runtimes.Session."""

    def run(self, batch: Floats) -> object:
        """Run once."""


class KernelTime(Protocol):
    """Kernel time of a node: see fettle.hardware.runtimes.Kernel."""

    @property
    def name(self) -> str: ...
    @property
    def ms(self) -> float: ...


class ProfiledModel(TimedWidth, Protocol):
    """Profiled model, as a runtime's `profile` returns it: see
    fettle.hardware.runtimes.Profiler.
    """

    def kernels(self) -> Sequence[KernelTime]:
        """Stop, and tell."""


@dataclass(frozen=True, slots=True)
class WidthSweep:
    """Width sweep, of which a table is made: kernels, the networks they were in, and others to
    judge it on.
    """

    samples: tuple[CostSample, ...]
    nets: tuple[NetworkTiming, ...]
    checks: tuple[NetworkTiming, ...]


def sweep_widths(
    model: Path,
    *,
    shape: tuple[int, int, int],
    multiple: int,
    seed: int,
    rounds: int,
    open_: Callable[[Path], TimedWidth],
    profile: Callable[[Path], ProfiledModel],
) -> WidthSweep:
    """Time copies of the ONNX `model` [1, C, H, W] in one runtime; channels are cut to `multiple`.

    A network whose widths cannot be changed one by one (grouped convolutions, concatenations,
    maps that are flattened) is timed as it is, and nothing is left to check the table on.
    """
    import onnx

    proto = onnx.load(model)
    batch = np.zeros((1, *shape), np.float32)
    widths = onnx_width_scaling.widths(
        onnx_width_scaling.operators(onnx_width_scaling.scale_widths(proto, {}))
    )
    if not onnx_width_scaling.is_runnable(
        onnx_width_scaling.scale_widths(proto, {w: min(w, multiple) for w in widths}), batch
    ):
        widths = []
    drawn = draw_widths(widths, multiple, seed, learnt=_affordable_copies(open_, model))
    with tempfile.TemporaryDirectory(prefix="fettle-clones-") as name:
        paths, operators = [], []
        for index, becomes in enumerate(drawn.learnt + drawn.checked):
            scaled = onnx_width_scaling.scale_widths(proto, becomes)
            operators.append(tuple(onnx_width_scaling.name_after_operators(scaled)))
            paths.append(Path(name) / f"{index}.onnx")
            onnx.save(scaled, paths[-1])
        learnt = len(drawn.learnt)
        profiles = _profile([profile(path) for path in paths[:learnt]], batch)
        sessions = [open_(path) for path in paths]
        times = latency_measurement.interleave(
            {str(index): _bind(session, batch) for index, session in enumerate(sessions)},
            rounds=rounds,
            seed=seed,
        )
    return _to_operators(operators, profiles, [float(np.median(ms)) for ms in times.values()])


def _affordable_copies(open_: Callable[[Path], TimedWidth], model: Path) -> int:
    """Say how many copies to learn from, by the time the network itself takes to load."""
    started = time.perf_counter()
    open_(model)
    spent = max(time.perf_counter() - started, 1e-6)
    both = int(LOADING_S / (2 * spent)) - len(CHECKED) - CHECKED_DRAWN
    return min(LEARNT, max(LEARNT_MIN, both))


@dataclass(frozen=True, slots=True)
class DrawnWidths:
    """For each copy, what every width becomes."""

    learnt: tuple[Mapping[int, int], ...]
    checked: tuple[Mapping[int, int], ...]


def draw_widths(
    widths: Sequence[int], multiple: int, seed: int, *, learnt: int = LEARNT
) -> DrawnWidths:
    """Draw the widths of all copies; without any to change, there is the network itself."""
    if not widths:
        return DrawnWidths(({},), ())
    rng = np.random.default_rng(seed)

    def cut(width: int, share: float) -> int:
        return min(width, max(multiple, round(width * share / multiple) * multiple))

    def one(share: float) -> dict[int, int]:
        apart = rng.uniform(1 - DEVIATION, 1 + DEVIATION, len(widths))
        return {w: cut(w, share * by) for w, by in zip(widths, apart, strict=True)}

    falling = np.geomspace(1, SHARE_MIN, learnt - 1)
    between = falling[[len(falling) // 3, -len(falling) // 3]] * 0.9
    return DrawnWidths(
        ({}, *(one(float(share)) for share in falling)),
        (
            *({w: cut(w, share) for w in widths} for share in CHECKED),
            *(one(float(share)) for share in between[:CHECKED_DRAWN]),
        ),
    )


def _profile(profilers: Sequence[ProfiledModel], batch: Floats) -> list[Sequence[KernelTime]]:
    for _ in range(TURNS):
        for profiler in profilers:
            for _ in range(RUNS_A_TURN):
                profiler.run(batch)
    return [profiler.kernels() for profiler in profilers]


def _to_operators(
    operators: Sequence[tuple[Operator, ...]],
    profiles: Sequence[Sequence[KernelTime]],
    ms: Sequence[float],
) -> WidthSweep:
    """Give each kernel to its operator; the first len(profiles) networks are learnt from."""
    samples: list[CostSample] = []
    nets: list[NetworkTiming] = []
    for listed, kernels, whole in zip(operators, profiles, ms, strict=False):
        spent, glue = [0.0] * len(listed), 0.0
        for kernel in kernels:
            position = onnx_width_scaling.operator_of(kernel.name)
            if position is None:
                glue += kernel.ms
            else:
                spent[position] += kernel.ms
        samples += [CostSample(pair, took) for pair, took in zip(listed, spent, strict=True)]
        nets.append(NetworkTiming(listed, whole, glue))
    rest = range(len(profiles), len(operators))
    return WidthSweep(
        tuple(samples),
        tuple(nets),
        tuple(NetworkTiming(operators[position], ms[position]) for position in rest),
    )


def _bind(session: TimedWidth, batch: Floats) -> Callable[[], object]:
    return lambda: session.run(batch)


def list_operators(model: Path) -> list[Operator]:
    """List the operators of an ONNX file for one image, float or QDQ."""
    import onnx

    proto: ModelProto = onnx.load(model)
    return onnx_width_scaling.operators(onnx_width_scaling.scale_widths(proto, {}))
