"""Operator cost fit: a latency table's Costs, learnt from profiled copies of a network.

Non-negative least squares on relative errors (Lawson & Hanson 1974, ch. 23), so that more channels
never cost less; then whole networks say what lies beyond the kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fettle.hardware.operator_cost_table import (
    FITS,
    Costs,
    CostSample,
    NetworkTiming,
    PredictionCheck,
    features_of,
    shares,
)

SAMPLES_MIN = 6  # fewer do not settle four terms: the next wider fit is used
# Weights and kernels grow together, so without a bound the weights may take it all (seen on a busy
# machine), and a network of another shape would be predicted from its weights alone.
# Above its bound the kernels would stand for time that others took from the machine.
KERNEL_SHARE_MIN, KERNEL_SHARE_MAX = 0.5, 1.5
Doubles = npt.NDArray[np.float64]


def fit(
    samples: Sequence[CostSample], nets: Sequence[NetworkTiming], checks: Sequence[NetworkTiming]
) -> Costs:
    """Learn the costs from kernels and whole networks; judge them on `checks`, not learnt from."""
    fits: dict[str, tuple[float, ...]] = {}
    for key, features in FITS:
        groups: dict[str, list[CostSample]] = {}
        for sample in samples:
            groups.setdefault(key(sample.operator), []).append(sample)
        for name, group in groups.items():
            if key is FITS[-1][0] or len({s.operator for s in group}) >= SAMPLES_MIN:
                rows = np.array([features(s.operator) for s in group])
                fits[name] = _terms(rows, np.array([s.ms for s in group]))
    glue = float(np.median([net.glue_ms for net in nets if net.glue_ms is not None]))
    kernel_share, operator_ms, weight_ms = _beyond(fits, glue, nets)
    learnt = Costs(
        fits=fits,
        glue_ms=glue,
        kernel_share=kernel_share,
        operator_ms=operator_ms,
        weight_ms=weight_ms,
    )
    return replace(
        learnt,
        checks=tuple(
            PredictionCheck(
                macs=sum(operator.macs for operator in net.operators),
                predicted_ms=learnt.glue_ms + sum(shares(learnt, net.operators)),
                measured_ms=net.ms,
            )
            for net in checks
        ),
    )


def _beyond(
    fits: Mapping[str, tuple[float, ...]], glue: float, nets: Sequence[NetworkTiming]
) -> tuple[float, float, float]:
    """Relate whole networks to their kernels, operator by operator:

        ms = glue + sum over operators
             (kernel_share x kernel + operator_ms + weight_ms x weights x the network's weights)

    A profiler slows what it times and does not see the steps between nodes; and a network whose
    weights outgrow the caches is slower than its kernels by themselves. Least squares on relative
    errors; networks three deviations off are dropped once, since a hiccup of the machine during
    one of them would bend all.
    """
    from scipy.optimize import lsq_linear

    rows = np.array([np.sum(features_of(fits, net.operators), axis=0) for net in nets])
    ms = np.array([net.ms for net in nets])
    if len(nets) < 2 * rows.shape[1]:
        return 1.0, float(((ms - glue - rows[:, 0]) / rows[:, 1]).mean()), 0.0
    scale = rows.max(axis=0)
    kept = np.ones(len(nets), dtype=bool)
    for _ in range(2):
        solution = lsq_linear(
            (rows / scale)[kept] / ms[kept, None],
            (ms[kept] - glue) / ms[kept],
            bounds=(
                [KERNEL_SHARE_MIN * scale[0], -np.inf, 0],
                [KERNEL_SHARE_MAX * scale[0], np.inf, np.inf],
            ),
        ).x
        off = np.abs(((rows / scale) @ solution + glue) / ms - 1)
        kept = off <= 3 * max(float(np.median(off)) * 1.4826, 0.02)
    terms = solution / scale
    return float(terms[0]), float(terms[1]), float(terms[2])


def _terms(features: Doubles, ms: Doubles) -> tuple[float, ...]:
    """Solve min |F t / ms - 1| for t >= 0; features are scaled so that none drowns."""
    from scipy.optimize import nnls

    weights = 1 / np.maximum(ms, 1e-3)  # profilers count whole microseconds
    scale = np.maximum(np.abs(features).max(axis=0), 1e-12)
    solution, _ = nnls(features / scale * weights[:, None], ms * weights)
    return tuple(float(term) for term in solution / scale)
