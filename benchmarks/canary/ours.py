"""Roll out many challengers at once by fettle's own gates, looking after every request.

The statistics and codes are fettle.rollout.promotion.gates'; the few lines that move the rows from
step to step repeat fettle.rollout.promotion.rollout_state for arrays (tests/benchmarks compares
every verdict).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.canary.worlds import Mask, World
from fettle.rollout.promotion import gates as g
from fettle.rollout.promotion.gates import Code, Gates, Thresholds
from fettle.rollout.promotion.rollout_plan import RolloutPlan

Ints = npt.NDArray[np.int64]
PROMOTED, ROLLED_BACK, HELD = 1, 2, 3
# The champion's accuracy and the share of pairs where only it, or only the other, is wrong.
ONE_WRONG = 0.01


@dataclass
class Outcomes:
    """How each rollout ended, [rows]; requests: of users, pairs: of the shadow before."""

    end: Ints
    requests: Ints
    canary_requests: Ints
    pairs: Ints
    reached: Ints  # the highest step entered
    whole: Ints  # requests until all traffic first was the challenger's, 0 for never

    def share(self, end: int) -> float:
        """Return the share of rollouts that ended so."""
        return float((self.end == end).mean())


def take(state: Any, keep: Mask) -> Any:  # Any: a dataclass of arrays, and of such dataclasses
    """Return the state with these rows only."""
    if is_dataclass(state) and not isinstance(state, type):
        made = {one.name: take(getattr(state, one.name), keep) for one in fields(state)}
        return type(state)(**made)
    kept = state[keep]
    return np.asfortranarray(kept) if kept.ndim == 2 else kept


def roll(
    world: World, plan: RolloutPlan, *, requests_max: int, first_step: int = 0, shadow: bool = True
) -> Outcomes:
    """Roll out `world.rows` challengers; what is undecided by `requests_max` is held."""
    bars, rows = Thresholds.of(plan), world.rows
    gates = g.start(rows)
    out = Outcomes(*(np.zeros(rows, np.int64) for _ in range(6)))
    out.end[:] = HELD
    live = np.arange(rows)
    if shadow:
        passed = _shadow(world, plan, bars, gates, out)
        live, gates = live[passed], take(gates, passed)
        world.take(passed)
    _live(world, plan, gates, out, live, requests_max, first_step)
    return out


def _shadow(world: World, plan: RolloutPlan, bars: Thresholds, gates: Gates, out: Outcomes) -> Mask:
    """Answer pairs until each row passes, fails, or has spent its budget."""
    live = np.arange(world.rows)
    passed = np.zeros(world.rows, bool)
    c = world.challenger
    for n in range(1, plan.step_budget_requests + 1):
        u = world.rng.random(len(live))
        champion_wrong, challenger_wrong = u < ONE_WRONG, u > 1 - ONE_WRONG - c.wrong
        one_wrong = 2 * ONE_WRONG + c.wrong  # of the others so many differ that `disagree` do
        share = max(0.0, c.disagree - one_wrong) / (1 - one_wrong)
        only_other = world.rng.random(len(live)) < share
        g.take_pair(
            gates,
            plan,
            bars,
            disagree=champion_wrong | challenger_wrong | only_other,
            champion_wrong=champion_wrong,
            challenger_wrong=challenger_wrong,
        )
        code = g.code_of_shadow(gates, plan)
        done = code != Code.INCONCLUSIVE
        if done.any():
            at = live[done]
            out.pairs[at], passed[at] = n, code[done] == Code.PASS
            out.end[at[code[done] == Code.FAIL]] = ROLLED_BACK
            live, gates = live[~done], take(gates, ~done)
        if not live.size:
            break
    out.pairs[live] = plan.step_budget_requests
    return passed


@dataclass
class Walk:
    """Where the live rollouts stand, [rows]: step (one past the last is the bake), counts."""

    row: Ints
    step: Ints
    since: Ints
    canary: Ints
    alarms: Ints


def _live(
    world: World,
    plan: RolloutPlan,
    gates: Gates,
    out: Outcomes,
    live: Ints,
    requests_max: int,
    first_step: int,
) -> None:
    """Send users' requests until each row ends."""
    bars = Thresholds.of(plan)
    weights, bake = np.array([*(one.weight for one in plan.steps), 1.0]), len(plan.steps)
    none = [np.zeros(len(live), np.int64) for _ in range(3)]
    walk = Walk(live, np.full(len(live), first_step), *none)
    for t in range(1, requests_max + 1):
        if not walk.row.size:
            return
        challenger, chance = world.assign(weights[walk.step])
        failed, log_ms = world.draw(t - 1, challenger)
        baking, step = walk.step == bake, np.minimum(walk.step, bake - 1)
        g.take_request(
            gates,
            plan,
            bars,
            step,
            challenger=challenger,
            propensity=chance,
            failed=failed,
            log_ms=log_ms,
        )
        g.take_alone(gates, plan, bars, failed=failed, log_ms=log_ms, counts=baking)
        walk.since += 1
        walk.canary += challenger
        code = np.where(baking, g.code_of_bake(gates), g.code_of_step(gates, bars, step))
        if not code.any():
            continue
        end, new = _move(walk, code, plan, out, t)
        if new.any():
            g.renew_step(gates, new)
        done = end > 0
        if done.any():
            at = walk.row[done]
            out.end[at], out.requests[at] = end[done], t
            out.canary_requests[at] = walk.canary[done]
            world.take(~done)
            gates, walk = take(gates, ~done), take(walk, ~done)
    out.requests[walk.row], out.canary_requests[walk.row] = requests_max, walk.canary


def _move(walk: Walk, code: Ints, plan: RolloutPlan, out: Outcomes, t: int) -> tuple[Ints, Mask]:
    """Move each row on by its code, as rollout.step does; return the ends and the new steps."""
    bake = len(plan.steps)
    baking = walk.step == bake
    rises = (code == Code.PASS) & (~baking | (walk.since >= plan.bake_requests))
    alarm = baking & (code == Code.FAIL)
    end = np.zeros(len(code), np.int64)
    end[rises & baking] = PROMOTED
    end[(code == Code.FAIL) & ~baking] = ROLLED_BACK
    end[(alarm & (walk.alarms > 0)) | (code == Code.ERROR)] = HELD
    walk.step = np.where(rises & ~baking, walk.step + 1, np.where(alarm, bake - 1, walk.step))
    walk.alarms += alarm
    new = rises | alarm
    walk.since[new] = 0
    out.reached[walk.row] = np.maximum(out.reached[walk.row], walk.step)
    whole = rises & (walk.step == bake) & ~baking & (out.whole[walk.row] == 0)
    out.whole[walk.row[whole]] = t
    return end, new
