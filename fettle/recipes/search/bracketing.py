"""Bracketing: from what surely holds to what pays, so that no trial is spent behind a failure.

A trial passes (it may be the answer), nearly passes (more training may bring it inside), or fails:
it collapsed, or lies far out. A failed trial leads nowhere, and nothing harsher of its kind is
tried from the same parent. While a kind has nothing that holds above its failure, its mildest
move comes next. So each kind of cut ends between a size that holds and one that does not.

The first cut is the mildest there is, and a network trained from scratch waits for it: on ten
classes of clothing five of eight trials were children of one that had already lost 45 points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from fettle.recipes.search.trial import Move, Result, Trial

Standing = Literal["passed", "near", "failed"]
# Beyond the largest drop that is accepted; twice as far for a trial that has most of its recovery
# before it. Felt right.
NEAR_DROP, NEAR_DROP_SHORT = 0.05, 0.1
SHORT_SHARE = 0.25  # of the long recovery
# A cut surely holds that loses so little of the training images' accuracy before any training, and
# pays at least so much. Read off the cuts of one network on photos of clothes: 11 points before
# training ended within one point, 23 and more did not in two epochs.
SURE_PROBE, SURE_GAIN = 0.12, 0.9
SURE_DROP = 0.025  # beyond the largest drop that is accepted: a longer recovery wins that back
SURE_SHARE = 0.4  # of the evaluations: the others look further


def accepted(result: Result, chance_min: float) -> bool:
    """Tell whether a trial is accepted: it may be the answer."""
    return not result.refused and result.chance >= chance_min and result.excess <= 1


def standing(trial: Trial, *, chance_min: float, drop_most: float, final_epochs: int) -> Standing:
    """Standing of a trial by its drop alone: a limit that is exceeded calls for a harsher cut."""
    result = trial.result
    if result.refused:
        return "failed"
    if result.chance >= chance_min:
        return "passed"
    short = trial.role == "shrink" and trial.epochs <= SHORT_SHARE * final_epochs
    near = drop_most + (NEAR_DROP_SHORT if short else NEAR_DROP)
    return "near" if result.drop <= near else "failed"


def inside_brackets(
    trials: Sequence[Trial],
    standings: Sequence[Standing],
    untried: Sequence[tuple[Trial, Move]],
) -> list[tuple[Trial, Move]]:
    """List the moves that may be tried: none beyond a failure of its kind, none anew before a cut.

    `standings` are those of `trials`, in order.
    """
    failed: dict[tuple[int, str], float] = {}
    held: dict[tuple[int, str], float] = {}
    for entry, stands in zip(trials, standings, strict=True):
        if entry.role != "shrink" or not entry.recipe:
            continue
        of = _kind(entry.parent, entry.recipe[-1]["use"])
        value = entry.foreseen_value if entry.foreseen_value is not None else entry.result.value
        if stands == "failed":
            failed[of] = max(failed.get(of, 0.0), value)
        else:
            held[of] = max(held.get(of, 0.0), value)
    mildest: dict[tuple[int, str], float] = {}
    for parent, move in untried:
        if move.role == "shrink":
            of = _kind(parent.number, move.step.get("use"))
            mildest[of] = max(mildest.get(of, 0.0), move.value)
    waits = len(trials) == 1 and first_cut(trials, untried) is not None

    def may(parent: Trial, move: Move) -> bool:
        if move.role == "recover":
            return True
        if move.anew and waits:
            return False
        of = _kind(parent.number, move.step.get("use"))
        limit = failed.get(of, 0.0)
        holds = held.get(of, 0.0) > limit or limit == 0.0
        return move.value > limit and (holds or move.value == mildest[of])

    return [(parent, move) for parent, move in untried if may(parent, move)]


def sure_cut(
    trials: Sequence[Trial],
    untried: Sequence[tuple[Trial, Move]],
    *,
    drop_most: float,
    evaluations_max: int,
) -> tuple[Trial, Move] | None:
    """Cut that surely holds, after cuts that did: the one that lowers the objective most, of those
    that lost little before any training. None where there is no such cut, or the last one does not
    hold any more: from there on improvement is expected, not sure.

    A long recovery of one bold cut takes the time of three short ones, and where it fails the
    search has nothing: on photos of clothes it then chose the float model.
    """
    if len(trials) > evaluations_max * SURE_SHARE:
        return None
    last = trials[-1]
    held = last.role == "root" or (
        not last.anew and not last.result.refused and last.result.drop <= drop_most + SURE_DROP
    )
    if not held:
        return None
    cuts = [
        (parent, move)
        for parent, move in untried
        if parent.number == last.number
        and move.role == "shrink"
        and not move.anew
        and move.probe <= SURE_PROBE
        and move.value <= SURE_GAIN * parent.result.value
    ]
    return min(cuts, key=lambda pair: pair[1].value, default=None)


def first_cut(
    trials: Sequence[Trial], untried: Sequence[tuple[Trial, Move]]
) -> tuple[Trial, Move] | None:
    """Mildest cut that lowers the objective, where a network anew waits for the first cut."""
    if len(trials) > 1 or not any(move.anew for _, move in untried):
        return None
    cuts = [
        (parent, move)
        for parent, move in untried
        if move.role == "shrink" and not move.anew and move.value < parent.result.value
    ]
    return max(cuts, key=lambda pair: pair[1].value, default=None)


def _kind(parent: int, use: object) -> tuple[int, str]:
    return parent, str(use)


def affordable(
    untried: Sequence[tuple[Trial, Move]], trials: Sequence[Trial], *, work_max: float
) -> list[tuple[Trial, Move]]:
    """List the moves whose training still fits `work_max`, in epochs of the float model."""
    left = work_max - math.fsum(entry.result.work for entry in trials)
    return [(parent, move) for parent, move in untried if move.work <= left]
