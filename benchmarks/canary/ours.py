"""Roll out many challengers at once by fettle's own gates, looking after every request.

Statistics and verdicts are fettle.rollout.promotion's; the few lines that move the rows from step
to step repeat fettle.rollout.promotion.rollout_state for arrays (tests/rollout/promotion compares
every verdict and every move).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.canary.worlds import Mask, World
from fettle.rollout.promotion import gates as g
from fettle.rollout.promotion import verdict_fold
from fettle.rollout.promotion.champion_history import BLOCK, HistoryArrays
from fettle.rollout.promotion.gate_thresholds import Thresholds
from fettle.rollout.promotion.gates import Drawn, Gates
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.verdict_fold import Code

Ints = npt.NDArray[np.int64]
PROMOTED, ROLLED_BACK, HELD = 1, 2, 3
SHADOW, STEP, BAKE, WATCH = range(len(verdict_fold.PHASES))
# The champion's accuracy and the share of pairs where only it, or only the other, is wrong.
ONE_WRONG = 0.01
HISTORY_BLOCKS = 48  # the champion's log before the rollout: 49,152 requests
KEEP = 0.85  # rows that have ended go on until so few are left: cutting costs more


@dataclass
class Outcomes:
    """How each rollout ended, [rows]; requests: of users, pairs: of the shadow before."""

    end: Ints
    requests: Ints
    canary_requests: Ints
    pairs: Ints
    reached: Ints  # the highest step entered
    whole: Ints  # requests until all traffic first was the challenger's, 0 for never
    reached_users: Ints  # 1 where the shadow let it meet users
    alarmed: Ints  # 1 where the watch after the promotion asked for a person

    def share(self, end: int) -> float:
        """Return the share of rollouts that ended so."""
        return float((self.end == end).mean())


@dataclass(frozen=True)
class Length:
    """How long to roll out: what is undecided by then is held. watch: requests after that."""

    requests_max: int
    shadow_images: int | None = None  # None: no shadow
    watch: int = 0
    history: bool = True


def take(state: Any, keep: Mask) -> Any:  # Any: a dataclass of arrays, and of such dataclasses
    """Return the state with these rows only."""
    if is_dataclass(state) and not isinstance(state, type):
        made = {one.name: take(getattr(state, one.name), keep) for one in fields(state)}
        return type(state)(**made)
    if isinstance(state, dict):
        return {name: take(one, keep) for name, one in state.items()}
    kept = state[keep]
    return np.asfortranarray(kept) if kept.ndim == 2 else kept


def roll(world: World, plan: RolloutPlan, length: Length) -> Outcomes:
    """Roll out `world.rows` challengers."""
    rows = world.rows
    history = past(world) if length.history else None
    gates = g.start(rows, history)
    out = Outcomes(*(np.zeros(rows, np.int64) for _ in range(8)))
    out.end[:] = HELD
    live = np.arange(rows)
    if length.shadow_images is not None:
        passed = _shadow(world, plan, Thresholds.of(plan, length.shadow_images), gates, out)
        out.reached_users[passed] = 1
        live, gates = live[passed], take(gates, passed)
        world.take(passed)
    if live.size:
        _live(world, plan, gates, out, live, length)
    return out


def past(world: World) -> HistoryArrays:
    """Draw the champion's log from before the rollout."""
    made = HistoryArrays.empty(world.rows)
    champion = np.zeros(world.rows, bool)
    weight = np.zeros(world.rows)
    failed, away = (np.zeros((world.rows, BLOCK), bool) for _ in range(2))
    log_ms = np.zeros((world.rows, BLOCK))
    for block in range(HISTORY_BLOCKS):
        for at in range(BLOCK):
            if world.sticky:
                world.assign(weight)
            seen = world.draw((block - HISTORY_BLOCKS) * BLOCK + at, champion)
            failed[:, at], away[:, at] = seen.failed, seen.refused | seen.gone
            log_ms[:, at] = seen.log_ms
        made.add(failed=failed, refused=away, log_ms=log_ms)
    return made


def _shadow(world: World, plan: RolloutPlan, bars: Thresholds, gates: Gates, out: Outcomes) -> Mask:
    """Answer each held-out image once, then judge; what does not pass is paused, hence held."""
    c, rows = world.challenger, world.rows
    for _ in range(bars.images):
        u = world.rng.random(rows)
        champion_wrong, challenger_wrong = u < ONE_WRONG, u > 1 - ONE_WRONG - c.wrong
        one_wrong = 2 * ONE_WRONG + c.wrong  # of the others so many differ that `disagree` do
        share = max(0.0, c.disagree - one_wrong) / (1 - one_wrong)
        only_other = world.rng.random(rows) < share
        g.take_pair(
            gates,
            plan,
            bars,
            disagree=champion_wrong | challenger_wrong | only_other,
            champion_wrong=champion_wrong,
            challenger_wrong=challenger_wrong,
        )
    code = _codes(gates, bars, plan, np.full(rows, SHADOW), np.zeros(rows, np.int64))
    out.pairs[:] = bars.images
    out.end[code == Code.FAIL] = ROLLED_BACK
    passed: Mask = code == Code.PASS
    return passed


def _codes(gates: Gates, bars: Thresholds, plan: RolloutPlan, phase: Ints, step: Ints) -> Ints:
    return verdict_fold.codes(gates, bars, plan, phase, step)


@dataclass
class Walk:
    """Where the live rollouts stand, [rows]: step (one past the last is the bake), counts."""

    row: Ints
    phase: Ints
    step: Ints
    since: Ints
    canary: Ints
    alarms: Ints
    done: Mask


def _live(
    world: World, plan: RolloutPlan, gates: Gates, out: Outcomes, live: Ints, length: Length
) -> None:
    """Send users' requests until each row ends."""
    bars = Thresholds.of(plan)
    weights = np.array([one.weight for one in plan.steps])
    none = [np.zeros(len(live), np.int64) for _ in range(4)]
    walk = Walk(live, np.full(len(live), STEP), *none, np.zeros(len(live), bool))
    for t in range(1, length.requests_max + length.watch + 1):
        alone = walk.phase != STEP
        challenger, chance = world.assign(np.where(alone, 1.0, weights[walk.step]))
        seen = world.draw(t - 1, challenger)
        drawn = Drawn(challenger, chance, seen.failed, seen.refused, seen.gone, seen.log_ms)
        g.take_request(gates, plan, bars, walk.step, drawn)
        g.take_alone(gates, plan, bars, drawn, counts=alone)
        walk.since += 1
        walk.canary += challenger
        code = _codes(gates, bars, plan, walk.phase, walk.step)
        if length.watch:
            alarmed = (walk.phase == WATCH) & verdict_fold.alarms(gates) & ~walk.done
            out.alarmed[walk.row] |= alarmed
        late = t >= length.requests_max or bool((walk.since >= plan.step_budget_requests).any())
        if not late and not code.any():
            continue
        end, new = move(walk, code, plan, out, length, t)
        if new.any():
            g.renew_step(gates, new)
        ends = (end > 0) & ~walk.done
        if ends.any():
            at = walk.row[ends]
            out.end[at], out.canary_requests[at] = end[ends], walk.canary[ends]
            out.requests[at] = np.where(out.requests[at] > 0, out.requests[at], t)
            walk.done |= ends
            if walk.done.all():
                return
            if walk.done.mean() > 1 - KEEP:
                keep = ~walk.done
                world.take(keep)
                gates, walk = take(gates, keep), take(walk, keep)
    left = walk.row[~walk.done]
    still = out.requests[left] == 0
    out.requests[left[still]] = length.requests_max
    out.canary_requests[left] = walk.canary[~walk.done]


def move(
    walk: Walk, code: Ints, plan: RolloutPlan, out: Outcomes, length: Length, t: int
) -> tuple[Ints, Mask]:
    """Move each row on by its code, as rollout_state.step does; return ends and new steps."""
    stepping, baking, watching = (walk.phase == one for one in (STEP, BAKE, WATCH))
    last = len(plan.steps) - 1
    good, bad = code == Code.PASS, code == Code.FAIL
    enters = stepping & good & (walk.step < last)
    bakes = stepping & good & (walk.step == last)
    promoted = baking & good & (walk.since >= plan.bake_requests)
    alarm = baking & bad
    spent = stepping & (code == Code.INCONCLUSIVE) & (walk.since >= plan.step_budget_requests)
    end = np.zeros(len(code), np.int64)
    end[promoted & (length.watch == 0)] = PROMOTED
    end[bad & (stepping | watching)] = ROLLED_BACK
    end[(alarm & (walk.alarms > 0)) | (code == Code.ERROR) | spent] = HELD
    over = ~watching & ~promoted & (t >= length.requests_max)
    end[over & (end == 0)] = HELD
    end[watching & (walk.since >= length.watch) & (end == 0)] = PROMOTED
    live = ~walk.done
    entered = promoted & live
    out.requests[walk.row[entered]] = t
    out.end[walk.row[entered]] = PROMOTED  # unless the watch undoes it
    walk.step = np.where(alarm, last, walk.step + enters)
    walk.phase = np.where(bakes, BAKE, np.where(alarm, STEP, np.where(promoted, WATCH, walk.phase)))
    walk.alarms += alarm
    new: Mask = enters | bakes | alarm | promoted
    walk.since[new] = 0
    out.reached[walk.row] = np.maximum(out.reached[walk.row], walk.step + (walk.phase != STEP))
    whole = bakes & live & (out.whole[walk.row] == 0)
    out.whole[walk.row[whole]] = t
    return end, new
