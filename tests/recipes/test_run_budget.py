"""The time of a run is parsed, and what it is spent on follows from it alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fettle import params
from fettle.cli import first_release
from fettle.errors import UserError
from fettle.params import Params
from fettle.recipes import run_budget, run_costs
from fettle.recipes.run_budget import BudgetPlan
from fettle.recipes.run_costs import RunSize

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "examples" / "photos.yaml"


def photos(overrides: Sequence[str] = ()) -> Params:
    return params.load(PHOTOS, [*overrides])


def size_of(images: int, *, pace: float = 1.0, cost: float = 1.0) -> RunSize:
    return RunSize(
        images=images,
        train=round(0.7 * images),
        validation=round(0.1 * images),
        cost=cost,
        pace=pace,
        image_s=0.042,
    )


def planned(minutes: float, size: RunSize, *overrides: str) -> BudgetPlan:
    return run_budget.plan(
        60 * minutes,
        photos(overrides),
        size,
        first=first_release.OVERRIDES,
        load=lambda chosen: photos([*overrides, *chosen]),
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("25m", 1500), ("90m", 5400), ("1h30m", 5400), ("1500s", 1500), ("2h", 7200), (" 5m ", 300)],
)
def test_a_time_is_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert run_budget.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "25", "m", "25 m", "1.5h", "-5m", "0m", "25min", "1m2h", "twenty", "25m!", "1h30"]
)
def test_anything_else_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(UserError) as caught:
        run_budget.parse(text)
    assert str(caught.value) == (
        f"--budget is no time: got '{text}'; a whole number of hours, minutes or seconds: 25m, "
        "90m, 1h30m, 1500s. Fix: for example fettle run --budget 25m."
    )


@pytest.mark.parametrize("minutes", [25, 40, 90, 300])
@pytest.mark.parametrize("images", [1_000, 3_781, 13_165, 200_000])
def test_all_parts_together_fit_in_the_time(minutes: float, images: int) -> None:
    size = size_of(images)
    try:
        plan = planned(minutes, size)
    except UserError as err:
        least = float(str(err).rpartition("about ")[2].partition(" min")[0])
        assert least > minutes
        return
    assert plan.total_s <= 60 * minutes
    settled = photos(plan.overrides)
    assert run_costs.finetune_s(settled, size) == pytest.approx(plan.finetune_s)
    if not plan.first:
        assert settled.compress.search.wall_clock_max_s == plan.search_s


def test_more_time_buys_more_epochs_and_more_evaluations() -> None:
    short, long = (planned(minutes, size_of(3_781)) for minutes in (25, 90))
    few, many = (photos(plan.overrides) for plan in (short, long))
    assert few.finetune.epochs_max < many.finetune.epochs_max
    assert few.compress.search.evaluations_max <= many.compress.search.evaluations_max
    assert few.compress.search.final_epochs < many.compress.search.final_epochs
    assert long.search_s > 2 * short.search_s


def test_a_slower_machine_is_given_less_to_do_in_the_same_time() -> None:
    fast, slow = (planned(25, size_of(3_781, pace=pace)) for pace in (0.5, 1.5))
    assert photos(slow.overrides).finetune.epochs_max < photos(fast.overrides).finetune.epochs_max


def test_an_epoch_that_does_not_fit_is_cut_to_steps() -> None:
    plan = planned(60, size_of(60_000, cost=0.5))
    settled = photos(plan.overrides)
    assert settled.finetune.epochs_max == run_budget.EPOCHS_MIN
    steps = settled.finetune.epoch_steps_max
    assert steps is not None
    assert 10 <= steps < 42_000 / 32
    assert plan.total_s <= 3600


def test_a_budget_that_leaves_no_search_becomes_a_first_release() -> None:
    plan = planned(4, size_of(1_000))
    assert plan.first
    assert plan.overrides == first_release.OVERRIDES
    assert plan.total_s <= 240


def test_a_budget_below_a_first_release_says_the_least_that_works() -> None:
    with pytest.raises(UserError) as caught:
        planned(1, size_of(3_781))
    text = str(caught.value)
    assert text.startswith(
        "the budget is too small for this data on this machine: got 1 min; the least that works is "
        "a first release (fettle run --first): about "
    )
    least = int(text.rpartition("fettle run --budget ")[2].partition("m,")[0])
    assert planned(least, size_of(3_781)).first
    with pytest.raises(UserError):
        planned(least - 1, size_of(3_781))


def test_a_given_recipe_is_kept_and_its_epochs_are_counted() -> None:
    recipe = "compress.recipe=[{use: prune, keep_fraction: 0.5}, {use: distil, epochs: 4}]"
    plan = planned(60, size_of(1_000), recipe)
    assert not any("search" in override for override in plan.overrides)
    assert plan.search_s > 4 * run_costs.recovery_epoch_s(photos(), size_of(1_000))


def test_the_same_time_gives_the_same_numbers_when_a_probe_says_one_percent_else() -> None:
    from fettle.cli.run_sizing import coarse_pace

    one, other = (planned(25, size_of(3_781, pace=coarse_pace(pace))) for pace in (1.2, 1.2 * 1.01))
    assert one == other
    assert coarse_pace(1.2) >= 1.2 * 0.95


def test_a_finished_file_fits_as_it_is_or_the_least_is_said() -> None:
    from dataclasses import replace

    file = replace(size_of(1_000), trains=False)
    assert planned(25, file).overrides == ()
    with pytest.raises(UserError) as caught:
        planned(0.5, file)
    assert "the least that works is an evaluation of a model that is not trained: about " in str(
        caught.value
    )
