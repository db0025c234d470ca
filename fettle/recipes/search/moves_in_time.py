"""Moves in time: which move a search may still begin, so that the final training ends in time.

A move that shrinks must leave what the final training of the best candidate so far will take, half
of the time at most. When it cannot, that final training comes next, with as many epochs as fit: a
training that is cut beforehand ends with its rate lowered, one that is stopped does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fettle.recipes.search.journaled_evaluator import JournaledEvaluator
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.trial import Move, Trial

RESERVED_MAX = 0.5  # of the limit; felt right

Offer = tuple[Trial, Move]
Choose = Callable[[Sequence[Offer]], Offer | None]


def fitting(
    picked: Offer,
    offered: Sequence[Offer],
    *,
    choose: Choose,
    clock: SearchClock,
    memory: JournaledEvaluator,
) -> Offer | None:
    """Return `picked` if the journal knows it or it fits, else the best of those `offered` that do,
    a recovery with fewer epochs among them; None when nothing fits.
    """
    parent, move = picked
    if memory.knows((*parent.recipe, move.step)):
        return picked
    if (known := memory.first_known(offered)) is not None:
        clock.passed_over = True
        return known  # what a killed run took in place of `picked`, for want of time
    reserve_s = _reserved(offered, choose, clock)
    if not clock.out_of_time() and clock.shorten(parent, move, reserve_s=reserve_s) is move:
        return picked
    clock.passed_over = True
    if clock.out_of_time():
        return None
    inside = []
    for of, asked in offered:
        fits = clock.shorten(of, asked, reserve_s=reserve_s)
        if fits is not None:
            inside.append((of, fits))
    return choose(inside)


def _reserved(offered: Sequence[Offer], choose: Choose, clock: SearchClock) -> float:
    """Seconds of the final training that would come now."""
    finalist = choose([offer for offer in offered if offer[1].role == "recover"])
    if finalist is None:
        return 0.0
    return min(clock.seconds(*finalist), RESERVED_MAX * clock.limit_s)


def shortened(untried: Sequence[Offer], parent: Trial, move: Move) -> list[str]:
    """Say of how many epochs a recovery was cut; nothing where it is whole."""
    return [
        f"the final training of trial {parent.number} had {move.epochs} of {asked.epochs} epochs"
        for of, asked in untried
        if is_same((of, asked), parent, move) and asked.epochs != move.epochs
    ]


def passed_over(clock: SearchClock, ended: str) -> tuple[str, ...]:
    """Say that the clock chose another way, where the search went on to another end."""
    elsewhere = clock.passed_over and ended != "clock"
    return ("a training that did not fit was passed over",) if elsewhere else ()


def is_same(offer: Offer, parent: Trial, move: Move) -> bool:
    """Tell whether an offer is this move, or the recovery that it was cut from."""
    of, asked = offer
    recovers = asked.role == "recover" == move.role
    return of.number == parent.number and (recovers or asked.step == move.step)
