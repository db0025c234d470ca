"""Recipe search by expected improvement, until nothing promises to repay an evaluation.

Of all untried moves from all trials the one of most expected improvement for its cost comes next:

    P(accepted after move and recovery) * ln(best value / value after it) / (epochs * cost of one)

First come cuts that surely hold, one after the other (bracketing.py), so that there is something
to choose. A shrinking move counts the recovery it would need, in likelihood and in epochs. An epoch
of a small model is cheap: so a student is tried early and trained long. Where a recovery failed
nothing smaller of its branch is tried, and until something was accepted the recovery of the
parent trial comes next. So the search goes to smaller models while the next promises more than
finishing this one; a finalist that fails sends it back to a milder recipe, and one that passes
raises the bar that a harsher one must beat.

As time runs out the final training of the best candidate comes first, cut to the epochs that fit.

Same moves, results and limits give the same trials in the same order. The journal is asked before
any evaluation, so that an interrupted search takes the same way without repeating any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fettle.recipes.search import (
    bracketing,
    hypervolume_improvement,
    moves_in_time,
    surrogate_model,
)
from fettle.recipes.search.bracketing import Standing, accepted
from fettle.recipes.search.journaled_evaluator import JournaledEvaluator, TrialEvaluator
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.search_result import Ended, SearchResult
from fettle.recipes.search.surrogate_model import Surrogate
from fettle.recipes.search.trial import Move, Result, SearchTimeoutError, Trial
from fettle.recipes.search.trial_journal import TrialJournal

SETTLED = 0.02  # an expected improvement below 2 % is within the spread of a latency


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """Search limits: `chance_min` accepts a trial; `final_epochs` is the recovery that a shrinking
    move needs.

    `front_drop_max`: look for the whole front up to this drop (hypervolume_improvement.py), not for
    one answer. `work_max` bounds the training of all trials, in epochs of the float model.
    """

    evaluations_max: int
    chance_min: float
    final_epochs: int
    front_drop_max: float | None = None
    work_max: float = math.inf


def search(
    root: Result,
    evaluator: TrialEvaluator,
    journal: TrialJournal,
    *,
    limits: SearchLimits,
    clock: SearchClock,
    on_trial: Callable[[Trial], None],
) -> SearchResult:
    """Search from the float model, which `root` describes and which costs no evaluation.

    `on_trial` hears of every trial in order, also of those the journal had. `clock` is asked before
    an evaluation only: what the journal holds is used whatever it says. An evaluator that runs out
    of time within a trial raises SearchTimeoutError, or gives a result that says what was `cut`.
    """
    memory = JournaledEvaluator(evaluator, journal, clock)
    drop_most = largest_drop(evaluator.chance, limits.chance_min)
    trials = [Trial(number=0, parent=-1, recipe=(), role="root", result=root)]
    untried: list[tuple[Trial, Move]] = []
    cut: list[str] = []
    try:
        untried += [(trials[0], move) for move in memory.moves(())]
        while True:
            picked = next_move(trials, untried, drop_most, limits, clock=clock, memory=memory)
            if not isinstance(picked, tuple):
                ended = picked
                break
            parent, move = picked
            cut += moves_in_time.shortened(untried, parent, move)
            entry = trial_of(trials, parent, move, memory)
            trials.append(entry)
            on_trial(entry)
            if entry.result.cut:
                cut.append(f"in trial {entry.number} {entry.result.cut}")
            untried = [pair for pair in untried if not moves_in_time.is_same(pair, parent, move)]
            if leads_on(entry, drop_most, limits):
                untried += [
                    (entry, further)
                    for further in memory.moves(entry.recipe)
                    if entry.role == "shrink" or further.role == "recover"
                ]
    except SearchTimeoutError:
        ended = "clock"
    best, met = choose_best(trials, limits.chance_min)
    standings = tuple(stand(entry, drop_most, limits) for entry in trials)
    return SearchResult(
        trials=tuple(trials),
        standings=standings,
        best=best,
        met=met,
        ended=ended,
        cut=tuple(cut) or moves_in_time.passed_over(clock, ended),
    )


def trial_of(
    trials: Sequence[Trial], parent: Trial, move: Move, memory: JournaledEvaluator
) -> Trial:
    """Make the next trial: evaluate the move, beside what the surrogate foresaw of it."""
    drop, _ = surrogate_model.fit(trials).after(parent, move)
    recipe = (*parent.recipe, move.step)
    return Trial(
        number=len(trials),
        parent=parent.number,
        recipe=recipe,
        role=move.role,
        result=memory.evaluate(recipe),
        probe=move.probe,
        epochs=move.epochs,
        anew=move.anew,
        foreseen_value=move.value,
        foreseen_drop=surrogate_model.expand_scale(drop),
    )


def next_move(
    trials: Sequence[Trial],
    untried: Sequence[tuple[Trial, Move]],
    drop_most: float,
    limits: SearchLimits,
    *,
    clock: SearchClock,
    memory: JournaledEvaluator,
) -> tuple[Trial, Move] | Ended:
    """Next move inside the brackets, the bounds and the time; else what ends the search."""
    standings = [stand(entry, drop_most, limits) for entry in trials]
    open_ = bracketing.inside_brackets(trials, standings, untried)

    def choose(offered: Sequence[tuple[Trial, Move]]) -> tuple[Trial, Move] | None:
        if limits.front_drop_max is not None:
            return hypervolume_improvement.choose_move(
                trials, offered, drop_max=limits.front_drop_max, final_epochs=limits.final_epochs
            )
        return choose_move(trials, offered, drop_most, limits)

    picked = (
        bracketing.sure_cut(
            trials, open_, drop_most=drop_most, evaluations_max=limits.evaluations_max
        )
        or bracketing.first_cut(trials, untried)
        or choose(open_)
    )
    if picked is None:
        return "settled"
    if len(trials) > limits.evaluations_max:
        return "evaluations"
    fitting = bracketing.affordable(open_, trials, work_max=limits.work_max)
    picked = picked if picked in fitting else choose(fitting)
    if picked is None:
        return "steps"
    return (
        moves_in_time.fitting(picked, fitting, choose=choose, clock=clock, memory=memory) or "clock"
    )


def stand(entry: Trial, drop_most: float, limits: SearchLimits) -> Standing:
    """Standing of a trial under these limits."""
    most = drop_most
    if limits.front_drop_max is not None:
        most = max(most, limits.front_drop_max)
    return bracketing.standing(
        entry, chance_min=limits.chance_min, drop_most=most, final_epochs=limits.final_epochs
    )


def leads_on(entry: Trial, drop_most: float, limits: SearchLimits) -> bool:
    """Tell whether a trial has children: a failed one has none, and of a recovery only a longer one
    while it nearly passes.
    """
    stands = stand(entry, drop_most, limits)
    if entry.role == "shrink":
        return stands != "failed"
    return stands == "near" and entry.epochs < limits.final_epochs


def choose_best(trials: Sequence[Trial], chance_min: float) -> tuple[int, bool]:
    """Return the number of the best trial, and whether it meets the goal.

    Inside budget and limits the least value wins. Otherwise the nearest miss: the least excess
    over a limit, then the best chance, then the least value.
    """
    good = [entry for entry in trials if accepted(entry.result, chance_min)]
    if good:
        return min(good, key=lambda entry: (entry.result.value, entry.number)).number, True
    whole = [entry for entry in trials if not entry.result.refused]

    def miss(entry: Trial) -> tuple[float, float, float, int]:
        return max(1.0, entry.result.excess), -entry.result.chance, entry.result.value, entry.number

    return min(whole, key=miss).number, False


def largest_drop(chance: Callable[[float], float], chance_min: float) -> float:
    """Return the largest validation drop that is accepted, by bisection: `chance` falls."""
    low, high = -1.0, 1.0
    for _ in range(20):  # to two millionths
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) >= chance_min else (low, middle)
    return low


def choose_move(
    trials: Sequence[Trial],
    untried: Sequence[tuple[Trial, Move]],
    drop_most: float,
    limits: SearchLimits,
) -> tuple[Trial, Move] | None:
    """Acquisition: the untried move of most expected improvement for its cost, None when all are
    small.

    Before anything is accepted, every move is held against the float model. Ties go to the move
    that was offered first.
    """
    good = [entry for entry in trials if accepted(entry.result, limits.chance_min)]
    bar = min((entry.result.value for entry in good), default=trials[0].result.value)
    learnt, failed = surrogate_model.fit(trials), failed_costs(trials, untried, limits.chance_min)
    open_ = [
        (parent, move)
        for parent, move in untried
        if move.value > failed.get(branch_root(trials, parent), 0.0) and reduces_cost(parent, move)
    ]
    if all(entry.role == "root" for entry in good):
        back = nearest_larger_recovery(trials, open_, limits.chance_min)
        if back is not None:
            return back
    best, chosen = 0.0, None
    for parent, move in open_:
        epochs = max(1, move.epochs + (limits.final_epochs if move.role == "shrink" else 0))
        cost = epochs * move.epoch_cost
        improvement = expected_improvement(
            parent, move, learnt, drop_most, bar=bar, final_epochs=limits.final_epochs
        )
        if improvement > SETTLED and improvement / cost > best:
            best, chosen = improvement / cost, (parent, move)
    return chosen


def reduces_cost(parent: Trial, move: Move) -> bool:
    """Tell whether a shrinking move lowers anything: a low-rank split of small layers does not."""
    before = parent.result
    nearer = max(1.0, move.excess) < max(1.0, before.excess)
    return move.role == "recover" or move.value < before.value or nearer


def branch_root(trials: Sequence[Trial], entry: Trial) -> int:
    """Return the number of the first trial on the way to `entry`; 0 for the root itself."""
    while entry.parent > 0:
        entry = trials[entry.parent]
    return entry.number


def failed_costs(
    trials: Sequence[Trial], untried: Sequence[tuple[Trial, Move]], chance_min: float
) -> dict[int, float]:
    """Return by branch the largest value whose recovery failed, with no longer one to come."""
    goes_on = {parent.number for parent, _ in untried}
    costs: dict[int, float] = {}
    for entry in trials:
        failed = entry.result.chance < chance_min and not entry.result.refused
        if entry.role == "recover" and failed and entry.number not in goes_on:
            root = branch_root(trials, entry)
            costs[root] = max(costs.get(root, 0.0), entry.result.value)
    return costs


def nearest_larger_recovery(
    trials: Sequence[Trial], untried: Sequence[tuple[Trial, Move]], chance_min: float
) -> tuple[Trial, Move] | None:
    """Return the recovery of a finalist that has just failed: a longer one of its own, or that of
    the nearest larger model above it.
    """
    last = trials[-1]
    if last.role != "recover" or last.result.chance >= chance_min:
        return None
    recoveries = {
        parent.number: (parent, move)
        for parent, move in untried
        if move.role == "recover" and move.excess <= 1
    }
    above = last.number
    while above > 0:
        if above in recoveries:
            return recoveries[above]
        above = trials[above].parent
    return None


def expected_improvement(
    parent: Trial,
    move: Move,
    learnt: Surrogate,
    drop_most: float,
    *,
    bar: float,
    final_epochs: int,
) -> float:
    """Return the expected improvement over `bar`, in ln of the value.

    A recovery of what breaks a hard limit improves nothing.
    """
    gain = math.log(bar / move.value)
    if gain <= 0 or (move.role == "recover" and move.excess > 1):
        return 0.0
    mean, variance = learnt.final(parent, move, final_epochs)
    return gain * surrogate_model.likelihood(drop_most, mean, variance)
