"""Trial evaluator behind the journal: asks that first, and writes down what it had to evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

from pydantic import JsonValue

from fettle.recipes.search import search_clock, trial
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.trial import Move, Recipe, Result, Trial
from fettle.recipes.search.trial_journal import TrialJournal


class TrialEvaluator(Protocol):
    """Trial evaluator: the only way in which a search touches models."""

    def moves(self, recipe: Recipe) -> Sequence[Move]:
        """List the next moves from an evaluated recipe, mild first."""

    def evaluate(self, recipe: Recipe) -> Result:
        """Evaluate `recipe`: make its model and score it on validation."""

    def chance(self, drop: float) -> float:
        """Probability that the budget holds on test for a validation drop: in [0, 1], falling."""


class JournaledEvaluator:
    """Trial evaluator that repeats nothing a journal holds."""

    def __init__(
        self,
        evaluator: TrialEvaluator,
        journal: TrialJournal,
        clock: SearchClock,
    ) -> None:
        self._evaluator, self._journal, self._clock = evaluator, journal, clock
        self._results: dict[str, Mapping[str, object]] = {}
        self._moves: dict[str, list[Move]] = {}
        for event in journal.events[1:]:
            if event["kind"] == "result":
                self._results[event["recipe"]] = event["result"]
                clock.resume(event["recipe"], event.get("clock", {}))
            else:
                self._moves[event["recipe"]] = _moves(event["moves"])

    def knows(self, recipe: Recipe) -> bool:
        """Tell whether the journal has the result of `recipe`."""
        return trial.key(recipe) in self._results

    def first_known(self, offered: Sequence[tuple[Trial, Move]]) -> tuple[Trial, Move] | None:
        """Return which of the moves the journal had first; a recovery with whatever epochs."""
        asked = {trial.key(parent.recipe): parent for parent, _ in offered}
        for event in self._journal.events[1:]:
            if event["kind"] != "result":
                continue
            *before, last = event["steps"]
            parent = asked.get(trial.key(before))
            for of, move in offered if parent is not None else ():
                if of is parent and (taken := _taken(move, last)) is not None:
                    return parent, taken
        return None

    def evaluate(self, recipe: Recipe) -> Result:
        """Return the result of `recipe`, from the journal or evaluated."""
        name = trial.key(recipe)
        if name not in self._results:
            kept = trial.result_to_json(self._evaluator.evaluate(recipe))
            steps = [dict(step) for step in recipe]
            self._journal.append(
                {
                    "kind": "result",
                    "recipe": name,
                    "steps": steps,
                    "result": kept,
                    "clock": self._clock.record(recipe),
                }
            )
            self._results[name] = kept
        return Result(**self._results[name])  # type: ignore[arg-type] # what result_to_json wrote

    def moves(self, recipe: Recipe) -> list[Move]:
        """List the next moves from `recipe`, from the journal or asked for."""
        name = trial.key(recipe)
        if name not in self._moves:
            offered = [asdict(move) for move in self._evaluator.moves(recipe)]
            self._journal.append({"kind": "moves", "recipe": name, "moves": offered})
            self._moves[name] = _moves(offered)
        return self._moves[name]


def _taken(move: Move, last: Mapping[str, JsonValue]) -> Move | None:
    """Return the move as the journal's step `last` has it; None where that is another one."""
    if move.role == "recover" and last.get("use") == move.step["use"] and "epochs" in last:
        move = search_clock.with_epochs(move, int(str(last["epochs"])))
    return move if move.step == last else None


def _moves(kept: list[dict[str, object]]) -> list[Move]:
    return [Move(**fields) for fields in kept]  # type: ignore[arg-type] # what asdict wrote
