"""Span gates: what the spans of a step say of errors, refusals and latency, at a look.

Latency. Slow means above a threshold that 5 % of both arms' answers exceed (tail_threshold.py).
Roll-back: the challenger is above it more often than the champion. Promotion, against "its p95 is
ratio times the champion's or more": sped up by the ratio, it is above such a threshold less often
than the champion (a quantile test by its indicator, Howard and Ramdas 2022). The null is on a
threshold set before the request, so it needs no distribution and no stationarity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.rollout.promotion import block_series, span_test
from fettle.rollout.promotion.block_series import BlockSeries, Column
from fettle.rollout.promotion.e_process import Bools, Floats, Rows, sizes
from fettle.rollout.promotion.gate_thresholds import Thresholds

Ints = npt.NDArray[np.int64]
NAMES = ("errors", "refused", "latency")
DRAWN = (Column.DRAWN, Column.DRAWN_C)
COLUMNS = {  # counts against "worse", counts against "not worse by the margin", requests
    "errors": ((Column.FAILED, Column.FAILED_C), (Column.FAILED, Column.FAILED_C), DRAWN),
    "refused": ((Column.REFUSED, Column.REFUSED_C), (Column.REFUSED, Column.REFUSED_C), DRAWN),
    "latency": (
        (Column.SLOW, Column.SLOW_C),
        (Column.LATE, Column.LATE_C),
        (Column.TIMED, Column.TIMED_C),
    ),
}


@dataclass
class SpanGate:
    """What the last look said, [rows]; a look replaces the one before, a failure stays."""

    passed: Bools
    failed: Bools
    t: Floats  # of the last look: minus t against the margin, or t against "not worse" of a failure
    bar: Floats


def start(rows: int = 1) -> SpanGate:
    """Return the state before any look."""
    return SpanGate(np.zeros(rows, bool), np.zeros(rows, bool), sizes(rows), np.full(rows, np.inf))


@dataclass(frozen=True)
class Look:
    """One look: after how many blocks, at which margin, with which shares of the errors."""

    blocks: int
    margin: float
    pass_alpha: float
    fail_alpha: float
    wide: bool


def look(
    gates: dict[str, SpanGate], blocks: BlockSeries, bars: Thresholds, rows: Rows, step: Ints
) -> None:
    """Look at these rows, whose last block has just become full; `step`: the step of each."""
    full = blocks.blocks[rows].astype(int)
    for many in np.unique(full):
        for at_step in np.unique(step[full == many]):
            pass_alpha = float(bars.pass_alpha[at_step, many])
            fails = {name: float(bars.fail_alpha[name][many]) for name in NAMES}
            if pass_alpha == 0 and not any(fails.values()):
                continue
            at = rows[(full == many) & (step == at_step)]
            for name in NAMES:
                margin = 0.0 if name == "latency" else float(bars.errors_margin[at_step])
                wide = not bool(bars.by_spans[at_step])
                of_gate = Look(int(many), margin, pass_alpha, fails[name], wide)
                _look_at(gates[name], blocks, COLUMNS[name], at, of_gate)


def _look_at(
    gate: SpanGate,
    blocks: BlockSeries,
    columns: tuple[tuple[Column, Column], ...],
    at: Rows,
    one: Look,
) -> None:
    """Judge one gate in these rows."""
    worse, within, n = (
        tuple(block_series.of(blocks, at, one.blocks, column) for column in both)
        for both in columns
    )
    none = np.zeros(len(at))
    if one.fail_alpha:
        least = span_test.SPANS_TO_FAIL
        t, bar = span_test.excess(_two(worse), _two(n), none, one.fail_alpha, least)
        above = span_test.above(t, bar) & ~gate.failed[at]
        gate.failed[at] |= above
        gate.t[at[above]], gate.bar[at[above]] = t[above], bar[above]
    if one.pass_alpha:
        t, bar = span_test.excess(
            _two(within), _two(n), none + one.margin, one.pass_alpha, wide=one.wide
        )
        gate.passed[at] = span_test.below(t, bar)
        open_ = ~gate.failed[at]
        gate.t[at[open_]], gate.bar[at[open_]] = -t[open_], bar[open_]


def _two(found: tuple[Floats, ...]) -> tuple[Floats, Floats]:
    return found[0], found[1]


def renew(gate: SpanGate, rows: Bools) -> None:
    """Begin a step anew in these rows."""
    gate.passed[rows] = gate.failed[rows] = False
    gate.t[rows], gate.bar[rows] = 0.0, np.inf
