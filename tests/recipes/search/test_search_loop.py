"""The search loop on a toy: what it finds, how often it evaluates, when it ends."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_bench import FINAL_EPOCHS, ROOT, Toy
from toy_search import fast, run

from fettle.recipes.search import search_loop
from fettle.recipes.search.search_loop import SearchLimits
from fettle.recipes.search.surrogate_model import prediction_errors
from fettle.recipes.search.trial import Move, Recipe, Result, Trial, key

LIMITS = SearchLimits(evaluations_max=24, chance_min=0.7, final_epochs=FINAL_EPOCHS)


def test_it_finds_nearly_the_smallest_model_inside_the_budget(tmp_path: Path) -> None:
    toy = Toy(hardness=0.1)
    found = run(toy, tmp_path / "journal")
    best = found.trials[found.best]
    assert found.met
    assert found.ended == "settled"
    assert best.role == "recover"
    assert toy.drop(best.recipe) < 0.02
    smallest = min(
        toy.share(recipe)
        for recipe in every(toy)
        if toy.chance(toy.drop(recipe)) >= LIMITS.chance_min
    )
    assert best.result.value <= 1.35 * 100 * smallest


def every(toy: Toy, recipe: Recipe = ()) -> list[Recipe]:
    found: list[Recipe] = [recipe]
    if recipe and recipe[-1]["use"] == "mend":
        return found
    return found + list(
        itertools.chain.from_iterable(every(toy, (*recipe, m.step)) for m in toy.moves(recipe))
    )


def test_a_fifth_of_all_evaluations_is_enough_for_nearly_the_best(tmp_path: Path) -> None:
    toy = Toy(hardness=0.2, floor=12.0)
    recipes = every(toy)[1:]
    found = run(toy, tmp_path / "journal", evaluations=len(recipes) // 5)
    smallest = min(toy.share(recipe) for recipe in recipes if toy.chance(toy.drop(recipe)) >= 0.7)
    assert len(recipes) == 102
    assert found.trials[found.best].result.value <= 1.2 * 100 * smallest


def test_the_same_search_gives_the_same_journal(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(Toy(), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@fast
@given(hardness=st.floats(0.005, 2.0), budget=st.floats(0.0, 0.1), evaluations=st.integers(1, 30))
def test_no_search_evaluates_more_than_it_may_nor_anything_twice(
    tmp_path_factory: pytest.TempPathFactory, hardness: float, budget: float, evaluations: int
) -> None:
    toy = Toy(hardness, budget)
    found = run(toy, tmp_path_factory.mktemp("j") / "journal", evaluations=evaluations)
    assert len(toy.evaluated) == len(found.trials) - 1 <= evaluations
    assert len({key(one.recipe) for one in found.trials}) == len(found.trials)
    numbers = found.front
    for trial in found.trials:  # each is on the front, or beaten by one that is
        assert trial.number in numbers or any(
            found.trials[at].result.value <= trial.result.value
            and found.trials[at].result.drop <= trial.result.drop
            for at in numbers
        )
    for a, b in itertools.combinations(numbers, 2):  # and none of the front beats another
        first, second = found.trials[a].result, found.trials[b].result
        assert first.value < second.value
        assert first.drop > second.drop


def test_when_the_clock_runs_out_the_best_so_far_is_kept_and_it_is_said(tmp_path: Path) -> None:
    found = run(Toy(), tmp_path / "journal", clock=[False] * 6 + [True])
    assert found.ended == "clock"
    assert len(found.trials) == 7
    more = run(Toy(), tmp_path / "journal", clock=[True])
    assert more == found  # what the journal holds costs no time


def test_a_goal_that_no_recipe_meets_ends_with_the_nearest_miss(tmp_path: Path) -> None:
    root = Result(value=100.0, drop=0.0, chance=1.0, excess=9.0)  # the float model is too large
    found = run(Toy(), tmp_path / "journal", evaluations=4, root=root)
    assert found.met  # the toy's own results are within the limits
    assert found.best > 0

    class Large(Toy):
        def evaluate(self, recipe: Recipe) -> Result:
            one = super().evaluate(recipe)
            return Result(value=one.value, drop=one.drop, chance=one.chance, excess=one.value / 2)

    nearest = run(Large(), tmp_path / "other", root=root)
    assert not nearest.met
    best = nearest.trials[nearest.best].result
    assert best.excess == min(trial.result.excess for trial in nearest.trials)


def test_a_recipe_that_cannot_be_made_is_a_refused_trial_and_leads_nowhere(tmp_path: Path) -> None:
    class Fragile(Toy):
        def evaluate(self, recipe: Recipe) -> Result:
            one = super().evaluate(recipe)
            return Result(refused="no number") if recipe[-1].get("keep") == 0.5 else one

    found = run(Fragile(), tmp_path / "journal")
    refused = [trial for trial in found.trials if trial.result.refused]
    assert refused
    assert found.met
    parents = {trial.parent for trial in found.trials}
    assert not parents & {one.number for one in refused}
    assert not set(found.front) & {one.number for one in refused}
    text = (tmp_path / "journal").read_text()
    assert '"result": {"refused": "no number"}' in text
    assert run(Fragile(), tmp_path / "journal") == found


def test_when_every_recipe_collapses_it_ends_at_the_float_model(tmp_path: Path) -> None:
    found = run(Toy(hardness=50.0), tmp_path / "journal")
    assert (found.best, found.met) == (0, True)


def test_a_recovery_of_what_breaks_a_hard_limit_is_not_worth_an_epoch() -> None:
    parent = Trial(number=0, parent=-1, recipe=(), role="root", result=ROOT)
    learnt = search_loop.surrogate_model.fit([parent])
    for role, excess, pays in (
        ("recover", 1.1, False),
        ("recover", 1.0, True),
        ("shrink", 2, True),
    ):
        move = Move(step={}, role=role, value=50.0, excess=excess)  # type: ignore[arg-type] # a Literal
        found = search_loop.expected_improvement(
            parent, move, learnt, 0.5, bar=100.0, final_epochs=16
        )
        assert (found > 0.5) == pays


def made(number: int, parent: int, role: str, chance: float, value: float) -> Trial:
    result = Result(value=value, drop=0.1, chance=chance)
    return Trial(number=number, parent=parent, recipe=(), role=role, result=result)  # type: ignore[arg-type] # a Literal


def test_nothing_smaller_is_tried_in_a_branch_whose_recovery_failed() -> None:
    trials = [
        made(0, -1, "root", 1.0, 100.0),
        made(1, 0, "shrink", 0.0, 50.0),
        made(2, 1, "shrink", 0.0, 30.0),
        made(3, 2, "recover", 0.2, 30.0),
        made(4, 0, "shrink", 0.0, 40.0),
        made(5, 4, "recover", 0.9, 40.0),
    ]
    assert search_loop.failed_costs(trials, 0.7) == {1: 30.0}
    assert [search_loop.branch_root(trials, trial) for trial in trials] == [0, 1, 1, 1, 4, 4]
    smaller, larger = (Move(step={}, role="shrink", value=value) for value in (29.0, 31.0))
    assert search_loop.choose_move(trials, [(trials[2], smaller)], 0.5, LIMITS) is None
    picked = search_loop.choose_move(trials, [(trials[1], larger)], 0.5, LIMITS)
    assert picked == (trials[1], larger)
    assert search_loop.choose_move(trials, [(trials[4], smaller)], 0.5, LIMITS) is not None


def test_a_finalist_that_fails_sends_the_search_to_the_rung_above_until_one_is_accepted() -> None:
    trials = [
        made(0, -1, "root", 1.0, 100.0),
        made(1, 0, "shrink", 0.0, 50.0),
        made(2, 1, "shrink", 0.0, 30.0),
        made(3, 2, "recover", 0.2, 30.0),
    ]
    other = Move(step={}, role="shrink", value=1.0, epochs=0)
    recovery = Move(step={}, role="recover", value=50.0, epochs=16)
    untried = [(trials[0], other), (trials[1], recovery)]
    assert search_loop.choose_move(trials, untried, 0.5, LIMITS) == (trials[1], recovery)
    trials.append(made(4, 1, "recover", 0.9, 50.0))
    assert search_loop.choose_move(trials, untried[:1], 0.5, LIMITS) == (trials[0], other)


def test_a_cut_that_lowers_nothing_is_not_tried_unless_it_nears_a_limit() -> None:
    trials = [made(0, -1, "root", 1.0, 100.0), made(1, 0, "shrink", 0.0, 30.0)]
    useless = Move(step={}, role="shrink", value=31.0, epochs=2)
    assert search_loop.choose_move(trials, [(trials[1], useless)], 0.5, LIMITS) is None
    over = replace(trials[1], result=replace(trials[1].result, excess=2.0))
    nearer = replace(useless, excess=1.5)
    assert search_loop.choose_move([trials[0], over], [(over, nearer)], 0.5, LIMITS) == (
        over,
        nearer,
    )


def test_of_two_equal_moves_the_one_of_cheap_epochs_comes_first() -> None:
    trials = [made(0, -1, "root", 1.0, 100.0)]
    large = Move(step={"n": 1}, role="shrink", value=50.0, epochs=2)
    small = Move(step={"n": 2}, role="shrink", value=50.0, epochs=20, epoch_cost=0.1)
    untried = [(trials[0], large), (trials[0], small)]
    assert search_loop.choose_move(trials, untried, 0.5, LIMITS) == (trials[0], small)
    dear = [(trials[0], large), (trials[0], replace(small, epoch_cost=1.0))]
    assert search_loop.choose_move(trials, dear, 0.5, LIMITS) == (trials[0], large)


def test_the_largest_drop_accepted_is_where_the_chance_falls_below() -> None:
    found = search_loop.largest_drop(Toy().chance, 0.7)
    assert Toy().chance(found) == pytest.approx(0.7, abs=1e-3)


def test_the_surrogate_s_error_is_reported(tmp_path: Path) -> None:
    found = run(Toy(), tmp_path / "journal")
    told = prediction_errors(found.trials)
    assert told["trials"] == len(found.trials) - 1
    assert told["value_rank_correlation"] > 0.99
    assert told["drop_rank_correlation"] > 0.5
    assert 0 < told["drop_mean_absolute_error"] < 0.1
    assert prediction_errors(found.trials[:2]) == {}


def test_the_journal_names_each_recipe_in_full(tmp_path: Path) -> None:
    run(Toy(), tmp_path / "journal", evaluations=2)
    events = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    results = [event for event in events if event["kind"] == "result"]
    assert len(results) == 2
    assert all(key(event["steps"]) == event["recipe"] for event in results)
