"""Block series: both arms' counts, by blocks of a step's requests, for span_test.py."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from fettle.rollout.promotion.e_process import Bools, Floats, sizes

BLOCKS = 192  # a step's budget has so many: 260 requests of 50,000


class Column(IntEnum):
    """What is counted in a block: pairs are champion's, then challenger's."""

    DRAWN, DRAWN_C, FAILED, FAILED_C, REFUSED, REFUSED_C = range(6)
    TIMED, TIMED_C, SLOW, SLOW_C, LATE, LATE_C = range(6, 12)


@dataclass
class BlockSeries:
    """The block under way and the full ones, [rows, …]."""

    current: Floats  # [rows, columns]
    in_block: Floats
    full: npt.NDArray[np.float32]  # [rows, columns, blocks]
    blocks: Floats  # how many are full


def start(rows: int = 1) -> BlockSeries:
    """Return the state before any request."""
    return BlockSeries(
        current=np.asfortranarray(sizes(rows, len(Column))),
        in_block=sizes(rows),
        full=np.zeros((rows, len(Column), BLOCKS), np.float32),
        blocks=sizes(rows),
    )


def update(state: BlockSeries, counted: dict[Column, Bools], tells: Bools, size: int) -> Bools:
    """Take one request a row, arrays [rows]; return the rows whose block is full by it."""
    for column, hits in counted.items():
        state.current[:, column] += hits
    state.in_block += tells & (state.blocks < BLOCKS)
    full: Bools = state.in_block >= size
    if full.any():
        at = np.flatnonzero(full)
        state.full[at, :, state.blocks[at].astype(int)] = state.current[at]
        state.blocks[at] += 1
        state.current[at], state.in_block[at] = 0.0, 0.0
    return full


def of(state: BlockSeries, rows: npt.NDArray[np.intp], blocks: int, column: Column) -> Floats:
    """Return one column of these rows' first blocks, [rows, blocks]."""
    found: Floats = state.full[rows, column, :blocks].astype(np.float64)
    return found


def total(state: BlockSeries, column: Column) -> float:
    """Return one column's sum over the first row's step so far."""
    full = state.full[0, column, : int(state.blocks[0])].sum(dtype=np.float64)
    return float(full + state.current[0, column])


def renew(state: BlockSeries, rows: Bools) -> None:
    """Begin a step anew in these rows."""
    state.current[rows], state.in_block[rows], state.blocks[rows] = 0.0, 0.0, 0.0
