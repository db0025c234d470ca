"""Run budget: the epochs, evaluations and clocks that make a run end in a given time.

Fine-tuning gets at most FINETUNE_SHARE of what the fixed stages leave, the search the rest, within
its own clock. Numbers are rounded to coarse steps: the same budget gives the same params.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fettle.errors import UserError
from fettle.params import Params
from fettle.recipes import run_costs
from fettle.recipes.remaining_time import spoken
from fettle.recipes.run_costs import RunSize

FINETUNE_SHARE = 0.45  # on photos of clothes 10.5 of 25 minutes; felt right elsewhere
FINAL_SHARE = 0.3  # of the search's time goes to the final training at most
EPOCHS_FACTOR = 2  # of what the params ask for: more time buys no more epochs than this
EPOCHS_MIN = 3  # a shorter fine-tuning is a cut epoch, not fewer of them
EVALUATIONS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 40)
SEARCH_MIN_S = 60.0  # below it the search tries nothing
CLOCK_STEP_S = 30.0
STEPS_MIN = 30  # of a whole training; fewer move nothing
FORM = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
RULE = "a whole number of hours, minutes or seconds: 25m, 90m, 1h30m, 1500s"


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """What was chosen: overrides of params.yaml, seconds of each part; `first`: a probe alone."""

    overrides: tuple[str, ...]
    finetune_s: float
    search_s: float
    fixed_s: float
    first: bool = False

    @property
    def total_s(self) -> float:
        """Seconds of the whole run."""
        return self.finetune_s + self.search_s + self.fixed_s


def parse(text: str) -> float:
    """Parse 25m, 90m, 1h30m or 1500s into seconds; raises UserError for anything else."""
    found = FORM.fullmatch(text.strip())
    parts = [int(part or 0) for part in found.groups()] if found and text.strip() else []
    seconds = sum(part * each for part, each in zip(parts, (3600, 60, 1), strict=False))
    if not seconds:
        raise UserError(
            "--budget is no time",
            got=f"'{text}'",
            rule=RULE,
            fix="for example fettle run --budget 25m",
        )
    return float(seconds)


def plan(
    asked_s: float,
    params: Params,
    size: RunSize,
    *,
    first: Sequence[str],
    load: Callable[[Sequence[str]], Params],
) -> BudgetPlan:
    """Plan a run of `asked_s`; `first` are the overrides of a first release, `load` reads the
    params with overrides.

    Raises UserError, with the least that works, for less than a first release takes.
    """
    fixed = run_costs.fixed_s(params, size)
    if not size.trains:
        return _untrained(asked_s, params, size)
    chosen = _finetune(params, size, FINETUNE_SHARE * (asked_s - fixed))
    if chosen is not None:
        settled = load(chosen)
        tuned_s = run_costs.finetune_s(settled, size)
        if params.compress.recipe != "auto":
            used = run_costs.compress_s(settled, size, run_costs.table())
            if fixed + tuned_s + used <= asked_s:
                return BudgetPlan(tuple(chosen), tuned_s, used, fixed)
        else:
            left = asked_s - fixed - tuned_s
            if (searched := _search(settled, size, left)) is not None:
                overrides, search_s = searched
                return BudgetPlan((*chosen, *overrides), tuned_s, search_s, fixed)
    least = load(first)
    floor = BudgetPlan(
        tuple(first),
        run_costs.finetune_s(least, size),
        run_costs.compress_s(least, size, run_costs.table()),
        run_costs.fixed_s(least, size),
        first=True,
    )
    if floor.total_s > asked_s:
        raise _too_small(asked_s, floor.total_s)
    return floor


def _untrained(asked_s: float, params: Params, size: RunSize) -> BudgetPlan:
    """Plan for a finished ONNX file: there is nothing to choose, it fits or it does not."""
    tuned_s = run_costs.finetune_s(params, size)
    used = run_costs.compress_s(params, size, run_costs.table())
    plan = BudgetPlan((), tuned_s, used, run_costs.fixed_s(params, size))
    if plan.total_s > asked_s:
        raise _too_small(asked_s, plan.total_s, what="an evaluation of a model that is not trained")
    return plan


def _finetune(params: Params, size: RunSize, most_s: float) -> list[str] | None:
    """Choose the epochs of fine-tuning, and their steps where not even a few epochs fit."""
    asked = params.finetune.epochs_max
    if asked == 0:
        return [] if run_costs.finetune_s(params, size) <= most_s else None

    def with_epochs(epochs: int, steps: int | None) -> Params:
        section = params.finetune.model_copy(
            update={"epochs_max": epochs, "epoch_steps_max": steps}
        )
        return params.model_copy(update={"finetune": section})

    limit = params.finetune.epoch_steps_max
    for epochs in range(EPOCHS_FACTOR * asked, min(EPOCHS_MIN, asked) - 1, -1):
        if run_costs.finetune_s(with_epochs(epochs, limit), size) <= most_s:
            return [f"finetune.epochs_max={epochs}"]
    epochs = min(EPOCHS_MIN, asked)
    whole = max(1, run_costs.epoch_images(params, size) // params.finetune.batch_images)
    for steps in _coarse(whole):
        if steps * epochs < STEPS_MIN:
            return None
        if run_costs.finetune_s(with_epochs(epochs, steps), size) <= most_s:
            return [f"finetune.epochs_max={epochs}", f"finetune.epoch_steps_max={steps}"]
    return None


def _coarse(most: int) -> list[int]:
    """List 1, 2 and 5 times powers of ten below `most`, falling: coarse steps of a number."""
    decades = range(int(math.log10(max(1, most))), -1, -1)
    return [n * 10**d for d in decades for n in (5, 2, 1) if n * 10**d < most]


def _search(params: Params, size: RunSize, left_s: float) -> tuple[list[str], float] | None:
    """Choose the search's clock, its evaluations and its final training."""
    costs = run_costs.table()
    clock = math.floor(left_s / CLOCK_STEP_S) * CLOCK_STEP_S
    if clock < SEARCH_MIN_S:
        return None
    search = params.compress.search
    each = run_costs.recovery_epoch_s(params, size)
    final = min(int(FINAL_SHARE * clock / each), EPOCHS_FACTOR * search.final_epochs)
    if final < 1:
        return _search_cut_epochs(params, size, clock)
    trial = run_costs.trial_s(params, size, costs)
    fitting = (1 - FINAL_SHARE) * clock / trial
    evaluations = max((n for n in EVALUATIONS if n <= fitting), default=EVALUATIONS[0])
    steps = max(1, round(size.train / params.finetune.batch_images))
    overrides = [
        f"compress.search.wall_clock_max_s={clock:.0f}",
        f"compress.search.evaluations_max={evaluations}",
        f"compress.search.final_epochs={final}",
        # the clock bounds, not the steps that a smaller budget had
        f"compress.search.trial_steps_max={max(search.trial_steps_max, final * steps)}",
        f"compress.search.steps_max={max(search.steps_max, 2 * evaluations * final * steps)}",
    ]
    return overrides, clock


def _search_cut_epochs(
    params: Params, size: RunSize, clock: float
) -> tuple[list[str], float] | None:
    """Cut each training to steps, where not one epoch fits: one each, of the same length."""
    step = run_costs.RECOVERY_STEP * size.train_image_s * params.finetune.batch_images
    steps = next(iter(_coarse(int(FINAL_SHARE * clock / step))), 0)
    if steps < STEPS_MIN:
        return None
    overrides = [
        f"compress.search.wall_clock_max_s={clock:.0f}",
        f"compress.search.evaluations_max={EVALUATIONS[0]}",
        "compress.search.trial_epochs=1",
        "compress.search.final_epochs=1",
        f"compress.search.trial_steps_max={steps}",
    ]
    return overrides, clock


FIRST = "a first release (fettle run --first)"


def _too_small(asked_s: float, least_s: float, *, what: str = FIRST) -> UserError:
    minutes = math.ceil(least_s / 60)
    return UserError(
        "the budget is too small for this data on this machine",
        got=spoken(asked_s),
        rule=f"the least that works is {what}: about {minutes} min",
        fix=f"fettle run --budget {minutes}m, or fewer images: fettle run --limit N",
    )
