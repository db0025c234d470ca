"""The search's clock: the final training fits in the time, and what was cut is said."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_bench import FINAL_EPOCHS, ROOT, Toy
from toy_search import fast

from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.search_loop import SearchLimits, search
from fettle.recipes.search.search_result import SearchResult
from fettle.recipes.search.trial import Move, Recipe, Result, Trial
from fettle.recipes.search.trial_journal import TrialJournal

EPOCH_S = 10.0


class Timed(Toy):
    """A toy whose trainings take EPOCH_S an epoch, and whose recoveries say their epochs."""

    def __init__(self) -> None:
        super().__init__(hardness=0.4)
        self.spent_s = 0.0
        self.clock = SearchClock(math.inf, now=lambda: self.spent_s)

    def limited(self, limit_s: float) -> Timed:
        self.clock = SearchClock(limit_s, now=lambda: self.spent_s)
        return self

    def moves(self, recipe: Recipe) -> list[Move]:
        if recipe and recipe[-1]["use"] == "mend":
            return []
        return [
            replace(move, step={**move.step, "epochs": move.epochs})
            for move in super().moves(recipe)
        ]

    def evaluate(self, recipe: Recipe) -> Result:
        epochs = int(str(recipe[-1]["epochs"]))
        self.spent_s += EPOCH_S * epochs
        self.clock.note_training(recipe, epochs=epochs, epoch_cost=1, seconds=EPOCH_S * epochs)
        return super().evaluate(recipe)


def run(bench: Timed, path: Path) -> SearchResult:
    limits = SearchLimits(evaluations_max=24, chance_min=0.7, final_epochs=FINAL_EPOCHS)
    return search(
        ROOT,
        bench,
        TrialJournal(path, "timed"),
        limits=limits,
        clock=bench.clock,
        on_trial=lambda _: None,
    )


@fast
@given(limit_s=st.floats(30, 1500))
def test_no_training_ends_after_the_limit_once_one_was_timed(
    tmp_path_factory: pytest.TempPathFactory, limit_s: float
) -> None:
    bench = Timed().limited(limit_s)
    found = run(bench, tmp_path_factory.mktemp("clock") / "journal")
    assert bench.spent_s <= limit_s
    whole = run(Timed(), tmp_path_factory.mktemp("clock") / "journal")
    assert found.truncated or found == whole


def test_the_final_training_is_cut_to_the_epochs_that_fit_and_it_is_said(tmp_path: Path) -> None:
    bench = Timed().limited(120)
    found = run(bench, tmp_path / "journal")
    last = found.trials[-1]
    assert last.role == "recover"
    assert last.recipe[-1]["epochs"] == last.epochs
    assert 0 < last.epochs < FINAL_EPOCHS
    assert found.truncated
    assert found.cut == (
        f"the final training of trial {last.parent} had {last.epochs} of {FINAL_EPOCHS} epochs",
    )
    assert bench.spent_s > 0.7 * 120  # the time is used


def test_a_search_that_has_time_is_not_cut(tmp_path: Path) -> None:
    found = run(Timed(), tmp_path / "journal")
    assert found.ended == "settled"
    assert found.cut == ()
    assert not found.truncated


def test_a_killed_search_counts_what_it_had_spent_and_keeps_its_cut_training(
    tmp_path: Path,
) -> None:
    before = run(Timed().limited(120), tmp_path / "journal")
    again = Timed().limited(120)
    assert run(again, tmp_path / "journal") == before
    assert again.evaluated == []
    assert again.clock.elapsed_s >= 0.7 * 120


def test_an_epoch_is_priced_by_the_same_model_where_it_was_trained() -> None:
    clock = SearchClock(100, now=lambda: 0.0)
    parent = Trial(number=1, parent=0, recipe=({"use": "cut"},), role="shrink", result=ROOT)
    mend = Move(step={"use": "mend", "epochs": 8}, role="recover", value=50, epochs=8)
    cut = Move(step={"use": "cut"}, role="shrink", value=20, epochs=2, epoch_cost=0.5)
    assert clock.epoch_s(parent, mend) == 0  # nothing was trained: nothing is known
    clock.note_training(({"use": "other"},), epochs=4, epoch_cost=1, seconds=40)
    assert clock.epoch_s(parent, cut) == 5
    clock.note_training(parent.recipe, epochs=2, epoch_cost=0.25, seconds=4)
    assert clock.epoch_s(parent, mend) == 2


def test_what_runs_after_the_last_training_is_kept_free() -> None:
    now = [0.0]
    clock = SearchClock(300, now=lambda: now[0])
    clock.reserve_closing(40)
    now[0] = 259.0
    assert not clock.out_of_time()
    now[0] = 260.0
    assert clock.out_of_time()
    clock.reserve_closing(1e6)  # longer than the limit: half is still for the search
    assert clock.left_s() == -110
