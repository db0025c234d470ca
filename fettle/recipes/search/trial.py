"""Trials of a search: a move, what its evaluation found, and the trial that keeps both."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from pydantic import JsonValue

Step = Mapping[str, JsonValue]  # `use`, and the technique's own options
Recipe = Sequence[Step]


def key(recipe: Recipe) -> str:
    """Key of a recipe, its hash (16 hex digits): its identity in the journal and in scratch."""
    text = json.dumps([dict(step) for step in recipe], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Move: one more step of a recipe, with what is known of it before any training.

    `role` shrink lowers the objective and may be followed by more moves; recover wins accuracy back
    and ends a recipe. `value` is the objective after the move (> 0, lower is better), `probe` the
    drop of the budget's metric right after it, untrained; `epochs` what it trains for, each at
    `epoch_cost` of one of the float model; `excess` as in Result. `anew` is another network,
    trained from scratch.
    """

    step: Step
    role: Literal["shrink", "recover"]
    value: float
    probe: float = 0.0
    epochs: int = 0
    epoch_cost: float = 1.0
    excess: float = 0.0
    anew: bool = False

    @property
    def work(self) -> float:
        """Training that it asks for, in epochs of the float model."""
        return self.epochs * self.epoch_cost


class SearchTimeoutError(Exception):
    """The search's clock ran out in a trial before its first epoch: no trace in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of an evaluation on validation.

    `value` is the objective (> 0), `drop` the point drop of the budget's metric, `chance` the
    predictive probability that the budget will hold on test, `excess` the worst ratio of a figure
    to its hard limit (at most 1: all are met). `refused` says why there is no model at all; these
    numbers then mean nothing. `work` is the training it took, in epochs of the float model. `cut`
    says what the clock took from it. `figures` is kept for whoever reads the trial.
    """

    value: float = math.inf
    drop: float = 1.0
    chance: float = 0.0
    excess: float = 0.0
    refused: str = ""
    work: float = 0.0
    cut: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A recipe that was evaluated; `parent` is the number of the trial it goes on from, -1 none.

    `epochs` is what its last step trained for, `foreseen_drop` what the surrogate said before.
    """

    number: int
    parent: int
    recipe: tuple[Step, ...]
    role: Literal["root", "shrink", "recover"]
    result: Result
    probe: float = 0.0
    epochs: int = 0
    anew: bool = False
    foreseen_value: float | None = None
    foreseen_drop: float | None = None


def result_to_json(result: Result) -> dict[str, object]:
    """Return the form a journal keeps; infinity has no JSON form, so a refusal keeps its reason."""
    if not result.refused:
        return asdict(result)
    work = {"work": result.work} if result.work else {}
    return {"refused": result.refused, **work}
