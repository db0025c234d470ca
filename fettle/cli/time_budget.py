"""`fettle run --budget 25m`: size the run to a time, and say first what was chosen and why."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from fettle.recipes import run_budget
from fettle.recipes.remaining_time import spoken

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fettle.params import Params
    from fettle.project import Project
    from fettle.recipes.run_budget import BudgetPlan
    from fettle.recipes.run_costs import RunSize


def size(
    asked_s: float, place: Project, settings: Params, *, file: Path, overrides: Sequence[str]
) -> list[str]:
    """Size the run that `place` was laid out for; return the overrides that were chosen.

    `file` and `overrides` are the params as they were asked for. Raises UserError for a time in
    which nothing can be done.
    """
    from fettle.cli import first_release, run_sizing
    from fettle.params import load

    found = run_sizing.size_of(place, settings)
    found = replace(found, pace=run_sizing.coarse_pace(found.pace))
    plan = run_budget.plan(
        asked_s,
        settings,
        found,
        first=first_release.OVERRIDES,
        load=lambda chosen: load(file, [*overrides, *chosen]),
    )
    for line in lines(asked_s, plan, settings, found):
        print(line, file=sys.stderr, flush=True)
    return list(plan.overrides)


def lines(asked_s: float, plan: BudgetPlan, settings: Params, size: RunSize) -> list[str]:
    """Say what was chosen and why, in plain lines."""
    head = f"budget {spoken(asked_s)}: {spoken(plan.finetune_s)} for fine-tuning"
    if plan.first:
        head = f"budget {spoken(asked_s)}: a first release alone, about {spoken(plan.total_s)}"
        search = "a linear probe in its fastest file; nothing is trained further or searched for"
    elif settings.compress.recipe == "auto" and size.trains:
        search = f"{spoken(plan.search_s)} for the search"
    else:
        search = f"{spoken(plan.search_s)} for the recipe that is given"
    rest = f"{spoken(plan.fixed_s)} for data, latency table, export, evaluation and release"
    chosen = ", ".join(override.replace("=", " ", 1) for override in plan.overrides)
    chosen = chosen or "nothing: the params fit as they are"
    return [
        f"{head}: {search}" if plan.first else f"{head}, {search}, {rest}",
        f"chosen {chosen}",
        f"since  {size.train:,} images to train on, {1000 * size.train_image_s:.0f} ms each a "
        f"training step here ({size.pace:.2g} times the committed table's machine)",
    ]
