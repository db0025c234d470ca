"""Brackets of the search: no children of a failure, nothing harsher of its kind, students later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fettle.recipes.search import bracketing
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.search.search_loop import SearchLimits, search
from fettle.recipes.search.search_result import SearchResult
from fettle.recipes.search.trial import Move, Recipe, Result, SearchTimeoutError, Trial
from fettle.recipes.search.trial_journal import TrialJournal

ROOT = Result(value=100.0, drop=0.0, chance=1.0)


class Photos:
    """A hard set: a cut to `holds` or more loses little, anything harsher collapses, as a student
    does. Every trial takes its epochs, a student's cost a tenth.
    """

    def __init__(self, holds: float = 0.6, at: int = 99, probe: float = 0.5) -> None:
        self.holds, self.at, self.asked = holds, at, 0
        self.probe = probe  # untrained drop for each share of the value that is gone

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
            Move(
                step={"use": "cut", "keep": keep},
                role="shrink",
                value=value * keep,
                probe=self.probe * (1 - keep * value / 100),
                epochs=2,
            )
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


def cuts(found: SearchResult) -> list[tuple[object, ...]]:
    return [tuple(step["keep"] for step in trial.recipe) for trial in found.trials[1:4]]


def test_the_largest_cuts_that_lose_little_untrained_come_first_one_on_another(
    tmp_path: Path,
) -> None:
    found = run(Photos(holds=0.3, probe=0.2), tmp_path / "journal")
    assert cuts(found)[:2] == [(0.5,), (0.5, 0.9)]  # 0.1 and 0.11 untrained; 0.5 of 0.5 loses 0.15
    assert found.trials[2].parent == 1


def test_a_sure_cut_that_does_not_hold_is_followed_by_no_other(tmp_path: Path) -> None:
    found = run(Photos(holds=0.95, probe=0.2), tmp_path / "journal")
    assert cuts(found)[0] == (0.5,)
    assert found.standings[1] == "failed"
    assert 1 not in {trial.parent for trial in found.trials}


def test_no_cut_is_sure_that_loses_much_or_pays_little(tmp_path: Path) -> None:
    trials = [Trial(number=0, parent=-1, recipe=(), role="root", result=ROOT)]

    def sure(*moves: Move) -> Move | None:
        pairs = [(trials[0], move) for move in moves]
        found = bracketing.sure_cut(trials, pairs, drop_most=0.01, evaluations_max=8)
        return found[1] if found else None

    gentle = Move(step={"use": "a"}, role="shrink", value=80, probe=0.02)
    harsh = Move(step={"use": "b"}, role="shrink", value=40, probe=0.3)
    slight = Move(step={"use": "c"}, role="shrink", value=95, probe=0.0)
    anew = Move(step={"use": "d"}, role="shrink", value=10, probe=0.0, anew=True)
    assert sure(harsh, slight, anew) is None
    assert sure(harsh, slight, anew, gentle) == gentle


def test_sure_cuts_leave_most_of_the_evaluations_to_what_is_expected(tmp_path: Path) -> None:
    roomy = Photos(holds=0.01, probe=0.05)
    limits = SearchLimits(evaluations_max=5, chance_min=0.7, final_epochs=16)
    found = search(
        ROOT,
        roomy,
        TrialJournal(tmp_path / "journal", "photos"),
        limits=limits,
        clock=SearchClock(),
        on_trial=lambda _: None,
    )
    assert cuts(found)[:2] == [(0.5,), (0.5, 0.5)]
    assert found.trials[3].anew  # the students had waited
