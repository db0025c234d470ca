"""Roll out many challengers at once by fettle's own gates, looking after every request.

The statistics and codes are fettle.promotion.gates'; the few lines that move the rows from step to
step repeat fettle.promotion.rollout for arrays (tests/benchmarks compares every verdict).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.canary.worlds import Mask, World
from fettle.promotion import gates as g
from fettle.promotion.gates import Bars, Code, Gates
from fettle.promotion.plan import Plan

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
    world: World, plan: Plan, *, requests_max: int, first_step: int = 0, shadow: bool = True
) -> Outcomes:
    """Roll out `world.rows` challengers; what is undecided by `requests_max` is held."""
    bars, rows = Bars.of(plan), world.rows
    gates = g.start(rows)
    out = Outcomes(*(np.zeros(rows, np.int64) for _ in range(6)))
    out.end[:] = HELD
    live = np.arange(rows)
    if shadow:
        passed = _shadow(world, plan, bars, gates, out)
        live, gates = live[passed], take(gates, passed)
        world.take(passed)
    _live(world, plan, bars, gates, out, live, requests_max, first_step)
    return out


def _shadow(world: World, plan: Plan, bars: Bars, gates: Gates, out: Outcomes) -> Mask:
    """Answer pairs until each row passes, fails, or has spent its budget."""
    live = np.arange(world.rows)
    passed = np.zeros(world.rows, bool)
    c = world.challenger
    for n in range(1, plan.step_budget_requests + 1):
        u = world.rng.random(len(live))
        champion_wrong, challenger_wrong = u < ONE_WRONG, u > 1 - ONE_WRONG - c.wrong
        only_other = world.rng.random(len(live)) < max(0.0, c.disagree - 2 * ONE_WRONG - c.wrong)
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


def _live(
    world: World,
    plan: Plan,
    bars: Bars,
    gates: Gates,
    out: Outcomes,
    live: Ints,
    requests_max: int,
    first_step: int,
) -> None:
    """Send users' requests until each row ends."""
    weights = np.array([*(one.weight for one in plan.steps), 1.0])
    bake = len(plan.steps)
    step = np.full(len(live), first_step)
    since, canary, alarms = (np.zeros(len(live), np.int64) for _ in range(3))
    for t in range(requests_max):
        if not live.size:
            return
        weight = weights[step]
        challenger, chance = world.assign(weight)
        failed, log_ms = world.draw(t, challenger)
        baking = step == bake
        g.take_request(
            gates,
            plan,
            bars,
            np.minimum(step, bake - 1),
            challenger=challenger,
            propensity=chance,
            failed=failed,
            log_ms=log_ms,
        )
        g.take_alone(gates, plan, bars, failed=failed, log_ms=log_ms, counts=baking)
        since, canary = since + 1, canary + challenger
        code = g.code_of_step(gates, bars, np.minimum(step, bake - 1))
        code = np.where(baking, g.code_of_bake(gates), code)
        if not baking.any() and not code.any():
            continue
        rises = (code == Code.PASS) & (~baking | (since >= plan.bake_requests))
        alarm = baking & (code == Code.FAIL)
        end = np.zeros(len(live), np.int64)
        end[rises & baking] = PROMOTED
        end[(code == Code.FAIL) & ~baking] = ROLLED_BACK
        end[(alarm & (alarms > 0)) | (code == Code.ERROR)] = HELD
        step = np.where(rises & ~baking, step + 1, np.where(alarm, bake - 1, step))
        alarms += alarm
        new = rises | alarm
        since = np.where(new, 0, since)
        if new.any():
            g.renew_step(gates, new)
        out.reached[live] = np.maximum(out.reached[live], step)
        out.whole[live[rises & (step == bake) & ~baking & (out.whole[live] == 0)]] = t + 1
        done = end > 0
        if done.any():
            at = live[done]
            out.end[at], out.requests[at], out.canary_requests[at] = end[done], t + 1, canary[done]
            keep = ~done
            world.take(keep)
            gates = take(gates, keep)
            live, step, since = live[keep], step[keep], since[keep]
            canary, alarms = canary[keep], alarms[keep]
    out.requests[live], out.canary_requests[live] = requests_max, canary
