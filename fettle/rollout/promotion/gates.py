"""Gates: every gate's statistics, updated a request at a time; PASS, FAIL or neither.

This is the code that the controller runs with one row and the simulator with ten thousand: a row
is a rollout, all arrays are [rows], and the statistics change in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from fettle.rollout.promotion import latency_gate, one_sample_test, srm, two_sample_test
from fettle.rollout.promotion.e_process import Bools, Floats, sizes
from fettle.rollout.promotion.gate_verdict import Verdict
from fettle.rollout.promotion.latency_gate import SLOW, Latency
from fettle.rollout.promotion.one_sample_test import OneSampleTest
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.srm import SampleRatio
from fettle.rollout.promotion.two_sample_test import TwoSampleTest

Ints = npt.NDArray[np.int64]


class Code(IntEnum):
    """A verdict as a number, for arrays."""

    INCONCLUSIVE = 0
    PASS = 1
    FAIL = 2
    ERROR = 3

    def verdict(self) -> Verdict:
        """Return it by name."""
        return Verdict(self.name)


@dataclass(frozen=True)
class Thresholds:
    """What a plan asks at each step: arrays [steps], thresholds as logs of e-values."""

    errors_margin: Floats
    log_ratio: Floats
    needs: dict[str, Bools]
    log_fail: dict[str, float]
    log_pass: float
    log_alarm: float

    @classmethod
    def of(cls, plan: RolloutPlan) -> Thresholds:
        """Read them off the plan; a ratio's margin is what it lies above 1."""
        times = np.array([step.margin_multiplier for step in plan.steps])
        return cls(
            errors_margin=np.minimum(times * plan.errors_margin, 1.0),
            log_ratio=np.log1p(times * (plan.latency_p95_ratio - 1)),
            needs={
                name: np.array([name in step.gates for step in plan.steps])
                for name in ("errors", "latency", "accuracy")
            },
            log_fail={
                name: -float(np.log(plan.alpha_fail(name)))
                for name in ("errors", "latency", "accuracy", "disagreement")
            },
            log_pass=-float(np.log(plan.alpha_promote)),
            log_alarm=-float(np.log(plan.alpha_rollback)),
        )


@dataclass
class Gates:
    """The statistics of all gates; `reference` is the champion's whole record: n, bad."""

    errors: TwoSampleTest
    latency: Latency
    split: SampleRatio
    accuracy: TwoSampleTest  # pairs in shadow
    disagreement: OneSampleTest
    labels: TwoSampleTest  # late labels of live requests
    alarm_errors: OneSampleTest  # at 100 %, no champion beside
    alarm_latency: OneSampleTest
    alarm_labels: OneSampleTest
    reference: Floats  # [rows, 2]


def start(rows: int = 1) -> Gates:
    """Return the state before any request."""
    return Gates(
        errors=two_sample_test.start(rows),
        latency=latency_gate.start(rows),
        split=srm.start(rows),
        accuracy=two_sample_test.start(rows),
        disagreement=one_sample_test.start(rows),
        labels=two_sample_test.start(rows),
        alarm_errors=one_sample_test.start(rows),
        alarm_latency=one_sample_test.start(rows),
        alarm_labels=one_sample_test.start(rows),
        reference=sizes(rows, 2),
    )


def take_request(
    gates: Gates,
    plan: RolloutPlan,
    bars: Thresholds,
    step: Ints,
    *,
    challenger: Bools,
    propensity: Floats,
    failed: Bools,
    log_ms: Floats,
) -> None:
    """Take one live request a row while both arms serve.

    step: the index of the row's step. propensity: the chance with which the challenger was drawn;
    0 or 1 where the unit had been drawn before (arm_assignment.py), which tells nothing.
    """
    answered = ~failed
    srm.update(gates.split, challenger, propensity=propensity, counts=propensity > 0)
    # with a wrong split every propensity is wrong: nothing after the alarm is evidence
    propensity = np.where(gates.split.alarm, 0.0, propensity)
    two_sample_test.update(
        gates.errors,
        challenger,
        failed,
        propensity=propensity,
        margin=bars.errors_margin[step],
        log_fail=bars.log_fail["errors"],
    )
    latency_gate.update(
        gates.latency,
        challenger,
        log_ms,
        propensity=propensity,
        log_ratio=bars.log_ratio[step],
        counts=answered,
        log_fail=bars.log_fail["latency"],
        log_pass=bars.log_pass,
    )
    gates.reference += np.stack([~challenger, ~challenger & failed], axis=1)
    two_sample_test.look(gates.errors, log_pass=bars.log_pass, hold_above=plan.both_failing_max)


def take_pair(
    gates: Gates,
    plan: RolloutPlan,
    bars: Thresholds,
    *,
    disagree: Bools,
    champion_wrong: Bools | None,
    challenger_wrong: Bools | None,
) -> None:
    """Take one shadow request a row, answered by both; wrong is None where no label is known."""
    limit = np.full(len(disagree), plan.disagreement_max)
    everywhere = np.ones(len(disagree), bool)
    log_fail = bars.log_fail["disagreement"]
    one_sample_test.update(
        gates.disagreement, disagree, limit=limit, counts=everywhere, log_fail=log_fail
    )
    one_sample_test.look(gates.disagreement, log_pass=bars.log_pass)
    if champion_wrong is not None and challenger_wrong is not None:
        two_sample_test.update_pairs(
            gates.accuracy,
            champion_wrong,
            challenger_wrong,
            margin=plan.accuracy_margin,
            log_fail=bars.log_fail["accuracy"],
        )
        two_sample_test.look(gates.accuracy, log_pass=bars.log_pass)


def take_label(
    gates: Gates,
    plan: RolloutPlan,
    bars: Thresholds,
    *,
    challenger: Bools,
    propensity: Floats,
    wrong: Bools,
) -> None:
    """Take one late label a row, with the arm and the propensity of its request.

    One of the bake has no champion beside it (propensity 1): the champion's labels are its measure,
    where there are any.
    """
    known = np.stack([gates.labels.n[:, 0], gates.labels.bad[:, 0]], axis=1)
    limit = np.minimum(upper_rate(known) + plan.accuracy_margin, 0.999)
    alone = (propensity >= 1) & (known[:, 0] > 0)
    one_sample_test.update(
        gates.alarm_labels, wrong, limit=limit, counts=alone, log_fail=bars.log_alarm
    )
    two_sample_test.update(
        gates.labels,
        challenger,
        wrong,
        propensity=propensity,
        margin=plan.accuracy_margin,
        log_fail=bars.log_fail["accuracy"],
    )
    two_sample_test.look(gates.labels, log_pass=bars.log_pass)


def take_alone(
    gates: Gates,
    plan: RolloutPlan,
    bars: Thresholds,
    *,
    failed: Bools,
    log_ms: Floats,
    counts: Bools,
) -> None:
    """Take one request a row of the bake: no champion beside, so its record is the measure.

    counts: masks the rows that are not in their bake.
    """
    if not counts.any():
        return
    limit = np.minimum(upper_rate(gates.reference) + plan.errors_margin, 0.999)
    one_sample_test.update(
        gates.alarm_errors, failed, limit=limit, counts=counts, log_fail=bars.log_alarm
    )
    slow = log_ms > gates.latency.log_tau + np.log(plan.latency_p95_ratio)
    known = counts & ~failed & (gates.latency.seen >= latency_gate.WARM_UP)
    limit = np.full(len(failed), SLOW)
    one_sample_test.update(
        gates.alarm_latency, slow, limit=limit, counts=known, log_fail=bars.log_alarm
    )


def upper_rate(record: Floats) -> Floats:
    """Return a generous estimate of a rate, [rows], from [rows, (n, bad)]; 0 without requests.

    Two standard deviations of a Poisson count above it: an alarm only asks for a comparison.
    """
    n, bad = record[:, 0], record[:, 1]
    upper: Floats = np.where(n > 0, (bad + 2 * np.sqrt(bad + 1)) / np.maximum(n, 1), 0.0)
    return upper


def code_of_step(gates: Gates, bars: Thresholds, step: Ints) -> Ints:
    """Fold the gates of a step into one code a row: any failure, else every pass that is asked."""
    failed = gates.errors.failed | gates.latency.failed | gates.labels.failed
    passed = np.ones(len(step), bool)
    for name, one in (
        ("errors", gates.errors),
        ("latency", gates.latency),
        ("accuracy", gates.labels),
    ):
        passed &= one.passed | ~bars.needs[name][step]
    code = np.where(failed, Code.FAIL, np.where(passed, Code.PASS, Code.INCONCLUSIVE))
    return np.where(gates.split.alarm & ~failed, Code.ERROR, code)


def code_of_shadow(gates: Gates, plan: RolloutPlan) -> Ints:
    """Fold the gates of the shadow into one code a row."""
    failed = gates.accuracy.failed | gates.disagreement.failed
    passed = gates.disagreement.n >= plan.shadow_requests
    if "accuracy" in plan.shadow_gates:
        passed &= gates.accuracy.passed
    if "disagreement" in plan.shadow_gates:
        passed &= gates.disagreement.passed
    return np.where(failed, Code.FAIL, np.where(passed, Code.PASS, Code.INCONCLUSIVE))


def code_of_bake(gates: Gates) -> Ints:
    """Return FAIL where an alarm was raised, else PASS: the rollout counts time and requests."""
    alarms = (gates.alarm_errors, gates.alarm_latency, gates.alarm_labels)
    failed = gates.labels.failed | np.any([alarm.failed for alarm in alarms], axis=0)
    return np.where(failed, Code.FAIL, np.where(gates.alarm_errors.n > 0, Code.PASS, 0))


def renew_step(gates: Gates, rows: Bools) -> None:
    """Begin a step anew in these rows."""
    srm.renew(gates.split, rows)
    two_sample_test.renew(gates.errors, rows)
    latency_gate.renew(gates.latency, rows)
    one_sample_test.renew(gates.alarm_errors, rows)
    one_sample_test.renew(gates.alarm_latency, rows)
    one_sample_test.renew(gates.alarm_labels, rows)
