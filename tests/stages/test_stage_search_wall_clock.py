"""A real search whose trainings are far too long for its time ends within the bound, and says so.

The clock runs on this thread's processor time, a hundred times as fast: 300 s are 3 s, whatever
else the machine does.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import compress_stage
import pytest
from compress_stage import make_inputs, settings

from fettle.facts.compress_facts import SearchSummary
from fettle.recipes import recipe_runner, recipe_search, recovery_training
from fettle.recipes.cost_model import CostModel
from fettle.recipes.recipe_evaluator import RecipeEvaluator
from fettle.recipes.recovery_training import CompressionJob, example_input
from fettle.recipes.search.search_clock import SearchClock
from fettle.recipes.trial_watch import OutOfTimeError, TrialWatch
from fettle.recorder import MemoryRecorder
from fettle.stage_contract import Inputs

LIMIT_S, SPEED = 300.0, 100.0
GOAL = (
    "compress.recipe=auto",
    "compress.objective={minimise: macs, target: null}",
    "compress.budget={metric: accuracy, drop_max: 0.04, confidence: 0.95}",
    "compress.constraints={}",
)
ENDLESS = 1_000_000  # epochs: hours of this tiny network


@dataclass
class Searched:
    """What a search came to, when it and the run of its recipe were over, and what was said."""

    summary: SearchSummary
    searched_s: float
    done_s: float
    macs: tuple[int, int]
    decisions: str


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return make_inputs(tmp_path_factory.mktemp("project"), epochs=8)


def job_of(inputs: Inputs, scratch: Path, search: str) -> CompressionJob:
    unbounded = f"steps_max: {2 * 10**9}, trial_steps_max: {2 * 10**9}"
    params = settings(*GOAL, f"compress.search={{{search}, {unbounded}}}")
    return compress_stage.job(replace(inputs, scratch=scratch), params, MemoryRecorder())


def seek(inputs: Inputs, scratch: Path, search: str) -> Searched:
    job = job_of(inputs, scratch, search)
    clock = SearchClock(LIMIT_S, now=lambda: SPEED * time.thread_time())
    found = recipe_search.search_recipe(job, 900, {}, clock=clock)
    searched_s = clock.elapsed_s
    done = recipe_runner.run_recipe(replace(job, recipe=found.recipe))
    recorder = job.recorder
    assert isinstance(recorder, MemoryRecorder)
    return Searched(
        found.document.summary(),
        searched_s,
        clock.elapsed_s,
        (done.before.size[1], done.after.size[1]),
        recorder.notes.get("decision", ""),
    )


def within_the_bound(found: Searched) -> None:
    assert found.done_s <= 1.1 * LIMIT_S
    assert found.summary.truncated
    assert "truncated by search.wall_clock_max_s" in found.summary.why
    assert found.decisions == f"search: {found.summary.why}"


def test_a_trial_in_flight_ends_at_the_bound_with_its_best_epoch(
    inputs: Inputs, tmp_path: Path
) -> None:
    search = f"evaluations_max: 8, trial_epochs: {ENDLESS}, final_epochs: {ENDLESS}"
    found = seek(inputs, tmp_path, search)
    within_the_bound(found)
    assert found.searched_s > 0.5 * LIMIT_S  # the time was used
    assert found.summary.cut[0].startswith("in trial 1 a training ended after ")
    assert found.summary.cut[0].endswith(f" of {ENDLESS} epochs")
    assert found.summary.cut[0] in found.summary.why
    assert found.summary.evaluations == 1
    assert found.macs[1] < found.macs[0]  # that trial is the answer: its state was kept


CUT = {"use": "prune", "keep_fraction": 0.75}
STUDENT = {"family": "small_cnn", "options": {"width": 8, "depth": 1, "blocks": 2}}


@pytest.mark.parametrize(
    "recipe",
    [
        [{**CUT, "recover_epochs": ENDLESS}],
        [{**CUT, "recover_epochs": 1}, {"use": "distil", "epochs": ENDLESS}],
        [{"use": "student", **STUDENT, "epochs": ENDLESS}],
    ],
    ids=["recovery of a cut", "final training", "student"],
)
def test_every_kind_of_training_ends_at_the_bound_with_its_best_epoch(
    inputs: Inputs, tmp_path: Path, recipe: list[dict[str, object]]
) -> None:
    job = job_of(inputs, tmp_path, "evaluations_max: 8")
    clock = SearchClock(LIMIT_S, now=lambda: SPEED * time.thread_time())
    price = CostModel("macs", job.params.compress.constraints, 4, example_input(job), {})
    evaluator = RecipeEvaluator(job, price, 900, clock)
    done = [evaluator.evaluate(recipe[: index + 1]) for index in range(len(recipe))]
    assert 0.5 * LIMIT_S < clock.elapsed_s <= 1.1 * LIMIT_S
    assert re.fullmatch(rf"a training ended after \d+ of {ENDLESS} epochs", done[-1].cut)
    assert done[-1].drop <= done[0].drop + 0.1  # weights that were kept, not lost
    assert [one.cut for one in done[:-1]] == [""] * (len(done) - 1)


def test_a_training_without_a_whole_epoch_leaves_nothing(inputs: Inputs, tmp_path: Path) -> None:
    job = job_of(inputs, tmp_path, "evaluations_max: 8")
    now = [0.0]
    clock = SearchClock(LIMIT_S, now=lambda: now[0])
    price = CostModel("macs", job.params.compress.constraints, 4, example_input(job), {})
    evaluator = RecipeEvaluator(job, price, 900, clock)
    now[0] = LIMIT_S + 1
    with pytest.raises(OutOfTimeError):
        evaluator.evaluate([{**CUT, "recover_epochs": ENDLESS}])
    assert not list(tmp_path.rglob("checkpoint.safetensors"))


def test_what_reads_all_images_before_a_training_asks_the_clock_at_each_batch(
    inputs: Inputs, tmp_path: Path
) -> None:
    asked = iter([False, True])
    job = job_of(inputs, tmp_path, "evaluations_max: 1")
    watched = replace(job, watch=TrialWatch(lambda: next(asked)))
    batches = recovery_training.training_batches(watched)
    assert len(next(batches)[1]) == recovery_training.BATCH_IMAGES
    with pytest.raises(OutOfTimeError):
        next(batches)
