"""Gates: every gate's statistics, updated a request at a time; PASS, FAIL or neither.

This is the code that the controller runs with one row and the simulator with thousands: a row is a
rollout, all arrays are [rows], and the statistics change in place. What they add up to is said by
`verdict_fold.codes`, for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.rollout.promotion import (
    block_series,
    cluster_effect,
    one_sample_test,
    shadow_gate,
    span_gates,
    srm,
    tail_threshold,
    two_sample_test,
)
from fettle.rollout.promotion.block_series import BlockSeries, Column
from fettle.rollout.promotion.champion_history import HistoryArrays
from fettle.rollout.promotion.cluster_effect import Clusters
from fettle.rollout.promotion.e_process import Bools, Floats, sizes
from fettle.rollout.promotion.gate_thresholds import Thresholds
from fettle.rollout.promotion.one_sample_test import OneSampleTest
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.shadow_gate import ShadowGate
from fettle.rollout.promotion.span_gates import SpanGate
from fettle.rollout.promotion.srm import SampleRatio
from fettle.rollout.promotion.tail_threshold import SLOW, TailThreshold
from fettle.rollout.promotion.two_sample_test import TwoSampleTest

Ints = npt.NDArray[np.int64]


@dataclass
class Gates:
    """The statistics of all gates; `reference` is the champion's whole record: n, bad."""

    errors: TwoSampleTest  # fast paths, and what passes a step with a wide margin
    refused: TwoSampleTest
    spans: dict[str, SpanGate]
    blocks: BlockSeries
    tail: TailThreshold
    error_clusters: Clusters
    refused_clusters: Clusters
    split: SampleRatio
    shadow: ShadowGate
    labels: TwoSampleTest  # late labels of live requests
    alarm_errors: OneSampleTest  # at 100 %, no champion beside
    alarm_latency: OneSampleTest
    alarm_labels: OneSampleTest
    reference: Floats  # [rows, 2]


def start(rows: int = 1, history: HistoryArrays | None = None) -> Gates:
    """Return the state before any request; `history`: what a log tells of the champion."""
    known = history
    return Gates(
        errors=two_sample_test.start(rows),
        refused=two_sample_test.start(rows),
        spans={name: span_gates.start(rows) for name in span_gates.NAMES},
        blocks=block_series.start(rows),
        tail=tail_threshold.start(rows)
        if known is None
        else tail_threshold.start(rows, known.log_tau, known.worst_log_tau),
        error_clusters=cluster_effect.start(rows)
        if known is None
        else cluster_effect.start(rows, known.errors, known.worst_errors),
        refused_clusters=cluster_effect.start(rows)
        if known is None
        else cluster_effect.start(rows, known.refused),
        split=srm.start(rows),
        shadow=shadow_gate.start(rows),
        labels=two_sample_test.start(rows),
        alarm_errors=one_sample_test.start(rows),
        alarm_latency=one_sample_test.start(rows),
        alarm_labels=one_sample_test.start(rows),
        reference=sizes(rows, 2),
    )


@dataclass(frozen=True)
class Drawn:
    """One live request a row, arrays [rows].

    propensity: the chance with which the challenger was drawn; 0 or 1 where the unit had been drawn
    before (arm_assignment.py), which tells nothing. refused: a 4xx that is no failure. gone: the
    caller left before an answer, so that the latency is at least log_ms (right-censored).
    """

    challenger: Bools
    propensity: Floats
    failed: Bools
    refused: Bools
    gone: Bools
    log_ms: Floats


def take_request(
    gates: Gates, plan: RolloutPlan, bars: Thresholds, step: Ints, seen: Drawn
) -> None:
    """Take one live request a row while both arms serve; step: the index of the row's step."""
    c = seen.challenger
    srm.update(gates.split, c, propensity=seen.propensity, counts=seen.propensity > 0)
    # with a wrong split every propensity is wrong: nothing after the alarm is evidence
    propensity = np.where(gates.split.alarm, 0.0, seen.propensity)
    away = seen.refused | seen.gone
    margin = bars.errors_margin[step]
    for name, test, bad, clusters in (
        ("errors", gates.errors, seen.failed, gates.error_clusters),
        ("refused", gates.refused, away, gates.refused_clusters),
    ):
        two_sample_test.update(
            test,
            c,
            bad,
            propensity=propensity,
            margin=margin,
            log_fail=bars.log_fail[name],
            effect=clusters.effect,
        )
        two_sample_test.look(
            test,
            log_pass=bars.log_pass[step],
            hold_above=plan.both_failing_max if name == "errors" else 1.0,
            rows=~bars.by_spans[step],
        )
        cluster_effect.update(clusters, bad, ~c)
    _block(gates, plan, bars, step, seen, (propensity > 0) & (propensity < 1))
    gates.reference += np.stack([~c, ~c & seen.failed], axis=1)


def _block(
    gates: Gates, plan: RolloutPlan, bars: Thresholds, step: Ints, seen: Drawn, tells: Bools
) -> None:
    """Count the request in its block, and look where that is full."""
    slow, late = tail_threshold.slow(gates.tail, seen.log_ms, seen.challenger, bars.log_ratio[step])
    # who left early says nothing, who waited longer than both thresholds says "slow"
    answered = ~seen.failed & ~seen.refused & (~seen.gone | (slow & late))
    timed = answered & tells & tail_threshold.ready(gates.tail)
    one, other = tells & ~seen.challenger, tells & seen.challenger
    away = seen.refused | seen.gone
    full = block_series.update(
        gates.blocks,
        {
            Column.DRAWN: one,
            Column.DRAWN_C: other,
            Column.FAILED: one & seen.failed,
            Column.FAILED_C: other & seen.failed,
            Column.REFUSED: one & away,
            Column.REFUSED_C: other & away,
            Column.TIMED: one & timed,
            Column.TIMED_C: other & timed,
            Column.SLOW: one & timed & slow,
            Column.SLOW_C: other & timed & slow,
            Column.LATE: one & timed & late,
            Column.LATE_C: other & timed & late,
        },
        tells,
        bars.block_size,
    )
    tail_threshold.update(
        gates.tail,
        seen.log_ms,
        (slow, late),
        champion=~seen.challenger,
        answered=answered,
        chance=np.where(seen.challenger, seen.propensity, 1 - seen.propensity),
    )
    if not full.any():
        return
    at = np.flatnonzero(full)
    span_gates.look(gates.spans, gates.blocks, bars, at, step[at])
    judged = at[bars.by_spans[step[at]]]
    for name, test in (("errors", gates.errors), ("refused", gates.refused)):
        test.passed[judged] = gates.spans[name].passed[judged]
    gates.errors.passed[judged] &= gates.errors.recent[judged] <= plan.both_failing_max


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
    shadow_gate.update(
        gates.shadow,
        plan,
        bars.images,
        differ=disagree,
        champion_wrong=champion_wrong,
        challenger_wrong=challenger_wrong,
    )


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
    two_sample_test.look(gates.labels, log_pass=bars.log_pass_labels)


def take_alone(
    gates: Gates, plan: RolloutPlan, bars: Thresholds, seen: Drawn, *, counts: Bools
) -> None:
    """Take one request a row of the bake: no champion beside, so its worst hour is the measure.

    counts: masks the rows that are not in their bake.
    """
    if not counts.any():
        return
    one_sample_test.update(
        gates.alarm_errors,
        seen.failed,
        limit=errors_limit(gates, plan),
        counts=counts,
        log_fail=bars.log_alarm,
    )
    slow = seen.log_ms > gates.tail.worst + np.log(plan.latency_p95_ratio)
    known = counts & ~seen.failed & ~seen.refused & tail_threshold.ready(gates.tail)
    one_sample_test.update(
        gates.alarm_latency,
        slow,
        limit=np.full(len(slow), SLOW),
        counts=known & (~seen.gone | slow),
        log_fail=bars.log_alarm,
    )


def errors_limit(gates: Gates, plan: RolloutPlan) -> Floats:
    """Return the share of errors above which a release that serves alone raises an alarm."""
    worst = np.maximum(upper_rate(gates.reference), gates.error_clusters.worst)
    limit: Floats = np.minimum(worst + plan.errors_margin, 0.999)
    return limit


def upper_rate(record: Floats) -> Floats:
    """Return a generous estimate of a rate, [rows], from [rows, (n, bad)]; 0 without requests.

    Two standard deviations of a Poisson count above it: an alarm only asks for a comparison.
    """
    n, bad = record[:, 0], record[:, 1]
    upper: Floats = np.where(n > 0, (bad + 2 * np.sqrt(bad + 1)) / np.maximum(n, 1), 0.0)
    return upper


def exhausted(gates: Gates) -> Bools:
    """Say where a step has used up its blocks: what comes after is evidence for nothing."""
    spent: Bools = gates.blocks.blocks >= block_series.BLOCKS
    return spent


def renew_step(gates: Gates, rows: Bools) -> None:
    """Begin a step anew in these rows; what is known of the champion goes on."""
    srm.renew(gates.split, rows)
    two_sample_test.renew(gates.errors, rows)
    two_sample_test.renew(gates.refused, rows)
    block_series.renew(gates.blocks, rows)
    for gate in gates.spans.values():
        span_gates.renew(gate, rows)
    one_sample_test.renew(gates.alarm_errors, rows)
    one_sample_test.renew(gates.alarm_latency, rows)
    one_sample_test.renew(gates.alarm_labels, rows)
