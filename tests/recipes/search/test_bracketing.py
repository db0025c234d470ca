"""Brackets of the search: no children of a failure, nothing harsher of its kind, students later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.search_loop import SearchLimits, SearchResult, search
from fettle.recipes.search.trial import Move, Recipe, Result, SearchTimeoutError
from fettle.recipes.search.trial_journal import TrialJournal

ROOT = Result(value=100.0, drop=0.0, chance=1.0)


class Photos:
    """A hard set: a cut to `holds` or more loses little, anything harsher collapses, as a student
    does. Every trial takes its epochs, a student's cost a tenth.
    """

    def __init__(self, holds: float = 0.6, at: int = 99) -> None:
        self.holds, self.at, self.asked = holds, at, 0

    def share(self, recipe: Recipe) -> float:
        share = 1.0
        for step in recipe:
            share *= float(str(step.get("keep", 1)))
        return share

    def moves(self, recipe: Recipe) -> Sequence[Move]:
        value = 100 * self.share(recipe)
        if recipe and recipe[-1]["use"] == "mend":
            return [
                Move(step={"use": "mend", "n": len(recipe)}, role="recover", value=value, epochs=16)
            ]
        cuts = [
            Move(step={"use": "cut", "keep": keep}, role="shrink", value=value * keep, epochs=2)
            for keep in (0.9, 0.7, 0.5)
        ]
        if recipe:
            return [*cuts, Move(step={"use": "mend"}, role="recover", value=value, epochs=6)]
        students = [
            Move(
                step={"use": "student", "keep": keep},
                role="shrink",
                value=100 * keep,
                epochs=150,
                epoch_cost=0.06,
                anew=True,
            )
            for keep in (0.2, 0.05, 0.02)
        ]
        return [*students, *cuts]

    def evaluate(self, recipe: Recipe) -> Result:
        self.asked += 1
        if self.asked > self.at:
            raise SearchTimeoutError
        work = {"cut": 2.0, "mend": 6.0, "student": 9.0}[str(recipe[-1]["use"])]
        share = self.share(recipe)
        if recipe[-1]["use"] == "student":
            return Result(refused="stopped at epoch 17 of 150", work=1.0)
        drop = 0.45 if share < self.holds else 0.03 / len(recipe)
        return Result(value=100 * share, drop=drop, chance=self.chance(drop), work=work)

    def chance(self, drop: float) -> float:
        return 0.9 if drop <= 0.01 else 0.1


def run(photos: Photos, path: Path, *, work_max: float = 1e9) -> SearchResult:
    limits = SearchLimits(evaluations_max=30, chance_min=0.7, final_epochs=16, work_max=work_max)
    return search(
        ROOT,
        photos,
        TrialJournal(path, "photos"),
        limits=limits,
        clock=SearchClock(),
        on_trial=lambda _: None,
    )


def test_a_failed_trial_has_no_children(tmp_path: Path) -> None:
    found = run(Photos(), tmp_path / "journal")
    failed = {n for n, stands in enumerate(found.standings) if stands == "failed"}
    assert failed
    assert not failed & {trial.parent for trial in found.trials}


def test_nothing_harsher_of_its_kind_follows_a_failure_of_the_same_parent(tmp_path: Path) -> None:
    found = run(Photos(), tmp_path / "journal")
    failed: dict[tuple[int, object], float] = {}
    for trial, stands in zip(found.trials, found.standings, strict=True):
        if trial.role != "shrink" or trial.foreseen_value is None:
            continue
        of = trial.parent, trial.recipe[-1]["use"]
        assert trial.foreseen_value > failed.get(of, 0.0)
        if stands == "failed":
            failed[of] = max(failed.get(of, 0.0), trial.foreseen_value)


def test_the_first_trial_is_the_mildest_cut_and_students_that_fail_are_given_up(
    tmp_path: Path,
) -> None:
    found = run(Photos(), tmp_path / "journal")
    assert found.trials[1].recipe == ({"use": "cut", "keep": 0.9},)
    students = [trial for trial in found.trials if trial.anew]
    assert len(students) <= 2
    best = found.trials[found.best]
    assert found.met
    assert best.number > 0
    assert best.result.value <= 81


def test_training_steps_bound_the_search_and_it_is_said(tmp_path: Path) -> None:
    found = run(Photos(), tmp_path / "journal", work_max=7.0)
    assert found.ended == "steps"
    assert sum(trial.result.work for trial in found.trials) <= 7.0


def test_a_clock_that_runs_out_inside_a_trial_keeps_the_best_and_says_clock(tmp_path: Path) -> None:
    found = run(Photos(at=3), tmp_path / "journal")
    assert found.ended == "clock"
    assert len(found.trials) == 4
    again = run(Photos(at=0), tmp_path / "journal")
    assert again.trials == found.trials
