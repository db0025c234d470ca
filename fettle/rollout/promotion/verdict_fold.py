"""Verdict fold: what all gates of a phase add up to, the same for one rollout and for thousands.

The controller asks it with one row and the simulator with many, so that the published error rates
are the controller's (tests/rollout/promotion/test_verdict_fold.py drives both).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from fettle.rollout.promotion.e_process import Bools
from fettle.rollout.promotion.gate_thresholds import Thresholds
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.gates import Gates, Ints
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.rollout_state import Phase

PHASES = (Phase.SHADOW, Phase.STEP, Phase.BAKE, Phase.PROMOTED)  # those that gates judge


class Code(IntEnum):
    """A verdict as a number, for arrays."""

    INCONCLUSIVE = 0
    PASS = 1
    FAIL = 2
    ERROR = 3

    def verdict(self) -> Verdict:
        """Return it by name."""
        return Verdict(self.name)


def codes(gates: Gates, bars: Thresholds, plan: RolloutPlan, phase: Ints, step: Ints) -> Ints:
    """Return the verdict of each row, [rows]; phase: its index in PHASES, step: in the plan."""
    out = np.zeros(len(phase), np.int64)
    for index, name in enumerate(PHASES):
        mine = phase == index
        if mine.any():
            out = np.where(mine, _of_phase(gates, bars, plan, name, step), out)
    return out


def _of_phase(gates: Gates, bars: Thresholds, plan: RolloutPlan, phase: Phase, step: Ints) -> Ints:
    match phase:
        case Phase.SHADOW:
            return _shadow(gates, bars, plan)
        case Phase.STEP:
            return _step(gates, bars, step)
        case Phase.BAKE:
            return _bake(gates)
        case _:
            return _promoted(gates)


def alarms(gates: Gates) -> Bools:
    """Say where a release that serves alone is worse than the champion ever was in its log."""
    raised = (gates.alarm_errors, gates.alarm_latency, gates.alarm_labels)
    found: Bools = np.any([alarm.failed for alarm in raised], axis=0)
    return found


def failed(gates: Gates) -> dict[str, Bools]:
    """Say by gate where a comparison of both arms has failed."""
    return {
        "errors": gates.errors.failed | gates.spans["errors"].failed,
        "refused": gates.refused.failed | gates.spans["refused"].failed,
        "latency": gates.spans["latency"].failed,
        "accuracy": gates.labels.failed,
    }


def passed(gates: Gates) -> dict[str, Bools]:
    """Say by gate where a comparison of both arms has passed."""
    return {
        "errors": gates.errors.passed,
        "refused": gates.refused.passed,
        "latency": gates.spans["latency"].passed,
        "accuracy": gates.labels.passed,
    }


def _shadow(gates: Gates, bars: Thresholds, plan: RolloutPlan) -> Ints:
    """Judge the shadow: once, when every image is answered."""
    one = gates.shadow
    bad = one.accuracy_failed | one.disagreement_failed
    good = (one.n >= bars.images) & (bars.images > 0)
    if "accuracy" in plan.shadow_gates:
        good &= one.accuracy_passed
    if "disagreement" in plan.shadow_gates:
        good &= one.disagreement_passed
    return _code(bad, good)


def _step(gates: Gates, bars: Thresholds, step: Ints) -> Ints:
    """Judge a step: any failure, else every pass that is asked."""
    bad = np.any(list(failed(gates).values()), axis=0)
    good = np.ones(len(step), bool)
    for name, one in passed(gates).items():
        good &= one | ~bars.needs["errors" if name == "refused" else name][step]
    return np.where(gates.split.alarm & ~bad, Code.ERROR, _code(bad, good))


def _bake(gates: Gates) -> Ints:
    """Judge the bake: an alarm, or none; the rollout counts time and requests."""
    return _code(gates.labels.failed | alarms(gates), gates.alarm_errors.n > 0)


def _promoted(gates: Gates) -> Ints:
    """Judge the watch: labels of requests that were drawn may undo, an alarm asks a person."""
    return _code(gates.labels.failed, (gates.alarm_errors.n > 0) & ~alarms(gates))


def _code(bad: Bools, good: Bools) -> Ints:
    return np.where(bad, Code.FAIL, np.where(good, Code.PASS, Code.INCONCLUSIVE))
