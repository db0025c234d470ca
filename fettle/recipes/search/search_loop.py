"""Recipe search by expected improvement, until nothing promises to repay an evaluation.

Of all untried moves from all trials the one of most expected improvement for its cost comes next:

    P(accepted after move and recovery) * ln(best value / value after it) / (epochs * cost of one)

A shrinking move counts the recovery it would need, in likelihood and in epochs. An epoch of a small
model is cheap: so a student is tried early and trained long. Where a recovery
failed nothing smaller of its branch is tried, and until something was accepted the recovery of the
parent trial comes next. So the search goes to smaller models while the next promises more than
finishing this one; a finalist that fails sends it back to a milder recipe, and one that passes
raises the bar that a harsher one must beat.

Same moves, results and limits give the same trials in the same order. The journal is asked before
any evaluation, so that an interrupted search takes the same way without repeating any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from fettle.recipes.search import hypervolume_improvement, surrogate_model, trial
from fettle.recipes.search.pareto_front import front
from fettle.recipes.search.surrogate_model import Surrogate
from fettle.recipes.search.trial import Move, Recipe, Result, Trial
from fettle.recipes.search.trial_journal import TrialJournal

SETTLED = 0.02  # an expected improvement below 2 % is within the spread of a latency


class TrialEvaluator(Protocol):
    """Trial evaluator: the only way in which a search touches models."""

    def moves(self, recipe: Recipe) -> Sequence[Move]:
        """List the next moves from an evaluated recipe, mild first."""

    def evaluate(self, recipe: Recipe) -> Result:
        """Evaluate `recipe`: make its model and score it on validation."""

    def chance(self, drop: float) -> float:
        """Probability that the budget holds on test for a validation drop: in [0, 1], falling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """Search limits: `chance_min` accepts a trial; `final_epochs` is the recovery that a shrinking
    move needs.

    `front_drop_max`: look for the whole front up to this drop (hypervolume_improvement.py), not for
    one answer.
    """

    evaluations_max: int
    chance_min: float
    final_epochs: int
    front_drop_max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Search result: all trials in order (the root first), the best one's number, and whether the
    goal is met.

    `ended`: settled (nothing promised more), evaluations (the bound), or clock (truncated).
    """

    trials: tuple[Trial, ...]
    best: int
    met: bool
    ended: Literal["settled", "evaluations", "clock"]

    @property
    def front(self) -> list[int]:
        """The numbers of the trials that none beats in value and drop."""
        whole = [entry for entry in self.trials if not entry.result.refused]
        points = [(entry.result.value, entry.result.drop) for entry in whole]
        return [whole[position].number for position in front(points)]


def search(
    root: Result,
    evaluator: TrialEvaluator,
    journal: TrialJournal,
    *,
    limits: SearchLimits,
    out_of_time: Callable[[], bool],
    on_trial: Callable[[Trial], None],
) -> SearchResult:
    """Search from the float model, which `root` describes and which costs no evaluation.

    `on_trial` hears of every trial in order, also of those the journal had. `out_of_time` is asked
    before an evaluation only: what the journal holds is used whatever the clock says.
    """
    memory = _JournaledEvaluator(evaluator, journal)
    drop_most = largest_drop(evaluator.chance, limits.chance_min)
    trials = [Trial(number=0, parent=-1, recipe=(), role="root", result=root)]
    untried = [(trials[0], move) for move in memory.moves(())]
    ended: Literal["settled", "evaluations", "clock"] = "settled"
    while True:
        if limits.front_drop_max is None:
            picked = choose_move(trials, untried, drop_most, limits)
        else:
            picked = hypervolume_improvement.choose_move(
                trials, untried, drop_max=limits.front_drop_max, final_epochs=limits.final_epochs
            )
        if picked is None:
            break
        if len(trials) > limits.evaluations_max:
            ended = "evaluations"
            break
        parent, move = picked
        recipe = (*parent.recipe, move.step)
        if not memory.knows(recipe) and out_of_time():
            ended = "clock"
            break
        drop, _ = surrogate_model.fit(trials).after(parent, move)
        entry = Trial(
            number=len(trials),
            parent=parent.number,
            recipe=recipe,
            role=move.role,
            result=memory.evaluate(recipe),
            probe=move.probe,
            epochs=move.epochs,
            foreseen_value=move.value,
            foreseen_drop=surrogate_model.expand_scale(drop),
        )
        trials.append(entry)
        on_trial(entry)
        untried = [pair for pair in untried if (*pair[0].recipe, pair[1].step) != recipe]
        if not entry.result.refused and entry.role == "shrink":
            untried += [(entry, further) for further in memory.moves(recipe)]
    best, met = choose_best(trials, limits.chance_min)
    return SearchResult(trials=tuple(trials), best=best, met=met, ended=ended)


def accepted(result: Result, chance_min: float) -> bool:
    """Tell whether a trial is accepted: it may be the answer."""
    return not result.refused and result.chance >= chance_min and result.excess <= 1


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
    learnt, failed = surrogate_model.fit(trials), failed_costs(trials, limits.chance_min)
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


def failed_costs(trials: Sequence[Trial], chance_min: float) -> dict[int, float]:
    """Return by branch the largest value whose long recovery failed."""
    costs: dict[int, float] = {}
    for entry in trials:
        failed = entry.result.chance < chance_min and not entry.result.refused
        if entry.role == "recover" and failed:
            root = branch_root(trials, entry)
            costs[root] = max(costs.get(root, 0.0), entry.result.value)
    return costs


def nearest_larger_recovery(
    trials: Sequence[Trial], untried: Sequence[tuple[Trial, Move]], chance_min: float
) -> tuple[Trial, Move] | None:
    """Return the recovery of the nearest larger model above a finalist that has just failed."""
    last = trials[-1]
    if last.role != "recover" or last.result.chance >= chance_min:
        return None
    recoveries = {
        parent.number: (parent, move)
        for parent, move in untried
        if move.role == "recover" and move.excess <= 1
    }
    above = last.parent
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


class _JournaledEvaluator:
    """Evaluator behind the journal: asks that first, and writes down what it had to evaluate."""

    def __init__(self, evaluator: TrialEvaluator, journal: TrialJournal) -> None:
        self._evaluator, self._journal = evaluator, journal
        self._results: dict[str, Mapping[str, object]] = {}
        self._moves: dict[str, list[Move]] = {}
        for event in journal.events[1:]:
            if event["kind"] == "result":
                self._results[event["recipe"]] = event["result"]
            else:
                self._moves[event["recipe"]] = _moves(event["moves"])

    def knows(self, recipe: Recipe) -> bool:
        return trial.key(recipe) in self._results

    def evaluate(self, recipe: Recipe) -> Result:
        name = trial.key(recipe)
        if name not in self._results:
            kept = trial.result_to_json(self._evaluator.evaluate(recipe))
            steps = [dict(step) for step in recipe]
            self._journal.append({"kind": "result", "recipe": name, "steps": steps, "result": kept})
            self._results[name] = kept
        return Result(**self._results[name])  # type: ignore[arg-type] # what result_to_json wrote

    def moves(self, recipe: Recipe) -> list[Move]:
        name = trial.key(recipe)
        if name not in self._moves:
            offered = [asdict(move) for move in self._evaluator.moves(recipe)]
            self._journal.append({"kind": "moves", "recipe": name, "moves": offered})
            self._moves[name] = _moves(offered)
        return self._moves[name]


def _moves(kept: list[dict[str, object]]) -> list[Move]:
    return [Move(**fields) for fields in kept]  # type: ignore[arg-type] # what asdict wrote
