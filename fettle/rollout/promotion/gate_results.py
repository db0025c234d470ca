"""Gate results for people: each with both arms' counts, the evidence and its threshold.

Evidence is an e-value, or where spans decide (span_test.py) the t of the last look; for a PASS or
before one it speaks for the challenger, for a FAIL against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fettle.rollout.promotion import block_series, e_process, shadow_gate, verdict_fold
from fettle.rollout.promotion import gates as g
from fettle.rollout.promotion.block_series import Column
from fettle.rollout.promotion.drift import Drift, log_evidence
from fettle.rollout.promotion.gate_thresholds import Thresholds
from fettle.rollout.promotion.gate_verdict import GateResult, Tally, Verdict
from fettle.rollout.promotion.gates import Gates
from fettle.rollout.promotion.one_sample_test import OneSampleTest
from fettle.rollout.promotion.request_records import Arm
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.rollout_state import Phase, RolloutState
from fettle.rollout.promotion.span_gates import SpanGate
from fettle.rollout.promotion.two_sample_test import TwoSampleTest

LARGEST = 700.0  # exp() of more overflows; the reader has seen enough by then


def of(
    gates: Gates,
    bars: Thresholds,
    plan: RolloutPlan,
    state: RolloutState,
    *,
    drift: Drift | None,
    error: str | None,
) -> tuple[GateResult, ...]:
    """Return the results of the phase's gates; row 0 is the rollout."""
    phase = state.paused_from if state.phase is Phase.PAUSED else state.phase
    found: list[GateResult] = []
    if error is not None:
        found.append(GateResult(name="analysis", verdict=Verdict.ERROR, reason=error))
    match phase:
        case Phase.SHADOW:
            found += _shadow(gates, bars, plan)
        case Phase.STEP:
            found += _step(gates, bars, plan, state)
        case Phase.BAKE | Phase.PROMOTED:
            found += _bake(gates, bars, plan, promoted=phase is Phase.PROMOTED)
        case _:
            return tuple(found)
    if drift is not None:
        found.append(_drift(drift))
    return tuple(found)


def stale(found: Sequence[GateResult], drift: Drift | None) -> bool:
    """Say whether inputs or late labels have left what the release was made of."""
    labels = any(
        (one.name == "accuracy" and one.verdict is Verdict.FAIL)
        or (one.name == "labels" and (one.evidence or 0.0) >= (one.threshold or math.inf))
        for one in found
    )
    return labels or (drift is not None and any(drift.alarm.values()))


def _shadow(gates: Gates, bars: Thresholds, plan: RolloutPlan) -> list[GateResult]:
    found = [
        one
        for one in (_shadow_accuracy(gates, bars, plan), _disagreement(gates, bars, plan))
        if one.name in plan.shadow_gates or one.verdict is Verdict.FAIL
    ]
    n = int(gates.shadow.n[0])
    enough = n >= bars.images > 0
    none = "no held-out image: the data of the release is gone"
    return [
        *found,
        GateResult(
            name="shadow",
            verdict=Verdict.PASS if enough else Verdict.INCONCLUSIVE,
            reason=f"{n} of {bars.images} images answered by both" if bars.images else none,
        ),
    ]


def _shadow_accuracy(gates: Gates, bars: Thresholds, plan: RolloutPlan) -> GateResult:
    one = gates.shadow
    n = int(one.labelled[0])
    champion, challenger = (Tally(float(one.wrong[0, at]), n) for at in (0, 1))
    verdict = _verdict(bool(one.accuracy_failed[0]), bool(one.accuracy_passed[0]))
    margin = shadow_gate.accuracy_margin(plan, bars.images)
    said = {
        Verdict.FAIL: "the challenger is worse",
        Verdict.PASS: f"not worse by {_points(margin)}",
    }.get(verdict, f"neither worse nor proved within {_points(margin)}")
    least = "" if margin == plan.accuracy_margin else f" (the least {bars.images} images decide)"
    return GateResult(
        name="accuracy",
        verdict=verdict,
        reason=f"{said}{least}: wrong {_share(challenger)} against {_share(champion)}, each once",
        champion=champion,
        challenger=challenger,
    )


def _disagreement(gates: Gates, bars: Thresholds, plan: RolloutPlan) -> GateResult:
    one = gates.shadow
    limit = shadow_gate.disagreement_limit(plan, bars.images)
    least = "" if limit == plan.disagreement_max else f" (the least {bars.images} images decide)"
    tally = Tally(float(one.differ[0]), int(one.n[0]))
    return GateResult(
        name="disagreement",
        verdict=_verdict(bool(one.disagreement_failed[0]), bool(one.disagreement_passed[0])),
        reason=f"{_share(tally)} answers differ from the champion's, limit {limit:.2%}{least}",
        challenger=tally,
    )


def _step(
    gates: Gates, bars: Thresholds, plan: RolloutPlan, state: RolloutState
) -> list[GateResult]:
    at = state.step_index
    needs = plan.steps[at].gates
    margin = float(bars.errors_margin[at])
    failed = {name: bool(one[0]) for name, one in verdict_fold.failed(gates).items()}
    found = [
        _errors(gates, bars, plan, margin, at, failed=failed["errors"]),
        _rates(gates, bars, "refused", margin, at, failed=failed["refused"]),
        _latency(gates, math.exp(float(bars.log_ratio[at]))),
    ]
    if "accuracy" in needs or gates.labels.n.any():
        found.append(_labels(gates, bars, plan))
    asked = {"refused": "errors"}
    return [
        *(
            one
            if asked.get(one.name, one.name) in needs or one.verdict is Verdict.FAIL
            else _not_asked(one)
            for one in found
        ),
        _split(gates),
    ]


def _bake(gates: Gates, bars: Thresholds, plan: RolloutPlan, *, promoted: bool) -> list[GateResult]:
    limit = float(g.errors_limit(gates, plan)[0])
    ratio = plan.latency_p95_ratio
    found = [
        _alarm("errors", gates.alarm_errors, f"requests fail, limit {limit:.2%}", bars.log_alarm),
        _alarm(
            "latency",
            gates.alarm_latency,
            f"requests above {ratio:g} x the champion's p95 in its worst hour, limit 5 %",
            bars.log_alarm,
        ),
    ]
    if gates.alarm_labels.n.any():
        text = "answers are wrong by their late labels"
        found.append(_alarm("labels", gates.alarm_labels, text, bars.log_alarm))
    if promoted:
        found = [_for_a_person(one) for one in found]
    if gates.labels.n.any():
        late = _labels(gates, bars, plan)
        found.append(late if late.verdict is Verdict.FAIL else _not_asked(late))
    if gates.alarm_errors.n[0] == 0:
        return [
            one
            if one.verdict is Verdict.FAIL
            else _with(one, Verdict.INCONCLUSIVE, "no request yet")
            for one in found
        ]
    return found


def _for_a_person(alarm: GateResult) -> GateResult:
    """Say of an alarm after the promotion that it undoes nothing: it may be a busy hour."""
    if alarm.verdict is not Verdict.FAIL:
        return alarm
    said = f"{alarm.reason}: an alarm, a person decides (fettle canary undo)"
    return _with(alarm, Verdict.INCONCLUSIVE, said)


def _errors(
    gates: Gates, bars: Thresholds, plan: RolloutPlan, margin: float, at: int, *, failed: bool
) -> GateResult:
    result = _rates(gates, bars, "errors", margin, at, failed=failed)
    if result.verdict is Verdict.INCONCLUSIVE and gates.errors.recent[0] > plan.both_failing_max:
        recent = f"the champion itself fails {gates.errors.recent[0]:.0%} of its recent requests"
        return _with(result, Verdict.INCONCLUSIVE, f"{recent}: held, not judged")
    return result


def _rates(
    gates: Gates, bars: Thresholds, name: str, margin: float, at: int, *, failed: bool
) -> GateResult:
    """Describe the errors or refusals of both arms at a step."""
    test = gates.errors if name == "errors" else gates.refused
    span = gates.spans[name]
    word = {"errors": "failed", "refused": "refused or left by their callers"}[name]
    verdict = _verdict(failed, bool(test.passed[0]))
    found = _compared(name, test, word, margin, verdict)
    if verdict is Verdict.FAIL and test.failed[0]:
        worse = float(e_process.log_e(test.worse)[0])
        return replace(found, evidence=_exp(worse), threshold=_exp(bars.log_fail[name]))
    if verdict is Verdict.FAIL or bars.by_spans[at]:
        return _by_spans(found, span)
    same = float(e_process.log_e(e_process.excess(test.expected, test.surplus, test.squared))[0])
    return replace(found, evidence=_exp(same), threshold=_exp(float(bars.log_pass[at])))


def _labels(gates: Gates, bars: Thresholds, plan: RolloutPlan) -> GateResult:
    """Describe the late labels of both arms."""
    test = gates.labels
    verdict = _verdict(bool(test.failed[0]), bool(test.passed[0]))
    found = _compared("accuracy", test, "wrong", plan.accuracy_margin, verdict)
    if verdict is Verdict.FAIL:
        worse = float(e_process.log_e(test.worse)[0])
        return replace(found, evidence=_exp(worse), threshold=_exp(bars.log_fail["accuracy"]))
    same = float(e_process.log_e(e_process.excess(test.expected, test.surplus, test.squared))[0])
    return replace(found, evidence=_exp(same), threshold=_exp(bars.log_pass_labels))


def _compared(
    name: str, test: TwoSampleTest, word: str, margin: float, verdict: Verdict
) -> GateResult:
    """Describe a comparison of two arms' rates."""
    champion, challenger = (Tally(float(test.bad[0, at]), int(test.n[0, at])) for at in (0, 1))
    said = {
        Verdict.FAIL: "the challenger is worse",
        Verdict.PASS: f"not worse by {_points(margin)}",
    }.get(verdict, f"neither worse nor proved within {_points(margin)}")
    return GateResult(
        name=name,
        verdict=verdict,
        reason=f"{said}: {word} {_share(challenger)} against {_share(champion)}",
        champion=champion,
        challenger=challenger,
    )


def _latency(gates: Gates, ratio: float) -> GateResult:
    span = gates.spans["latency"]
    champion, challenger = (
        Tally(block_series.total(gates.blocks, slow), int(block_series.total(gates.blocks, n)))
        for slow, n in ((Column.SLOW, Column.TIMED), (Column.SLOW_C, Column.TIMED_C))
    )
    verdict = _verdict(bool(span.failed[0]), bool(span.passed[0]))
    said = {
        Verdict.FAIL: "the challenger is slower",
        Verdict.PASS: f"p95 below {ratio:g} x the champion's",
    }.get(verdict, f"neither slower nor proved below {ratio:g} x")
    tau = f"slower than 95 % of both ({math.exp(float(gates.tail.log_tau[0])):.3g} ms)"
    found = GateResult(
        name="latency",
        verdict=verdict,
        reason=f"{said}: {_share(challenger)} against {_share(champion)} {tau}",
        champion=champion,
        challenger=challenger,
    )
    return _by_spans(found, span)


def _by_spans(result: GateResult, span: SpanGate) -> GateResult:
    """Add the last look's t and its bar; before one, or with too few spans, there is none."""
    if not math.isfinite(span.bar[0]):
        return replace(result, evidence=None, threshold=None)
    return replace(result, evidence=float(span.t[0]), threshold=float(span.bar[0]))


def _alarm(name: str, test: OneSampleTest, word: str, log_alarm: float) -> GateResult:
    """Describe an alarm: it is silent or not, there is nothing to prove."""
    tally = Tally(float(test.events[0]), int(test.n[0]))
    return GateResult(
        name=name,
        verdict=Verdict.FAIL if test.failed[0] else Verdict.PASS,
        reason=f"{_share(tally)} {word}",
        challenger=tally,
        evidence=_exp(float(e_process.log_e(test.over)[0])),
        threshold=_exp(log_alarm),
    )


def _split(gates: Gates) -> GateResult:
    alarm = bool(gates.split.alarm[0])
    said = "does not split as it was told" if alarm else "splits as it was told"
    return GateResult(
        name="split",
        verdict=Verdict.ERROR if alarm else Verdict.PASS,
        reason=f"the router {said}",
        evidence=_exp(float(e_process.log_e(gates.split.wealth)[0])),
        threshold=_exp(e_process.LOG_VALIDITY),
    )


def _drift(drift: Drift) -> GateResult:
    drifting = [arm.value for arm, alarm in drift.alarm.items() if alarm]
    said = f"inputs of {' and '.join(drifting)} left the training data: held"
    top = max(log_evidence(drift, arm) for arm in Arm)
    return GateResult(
        name="drift",
        verdict=Verdict.INCONCLUSIVE if drifting else Verdict.PASS,
        reason=said if drifting else "inputs look like the training data",
        evidence=_exp(top),
        threshold=_exp(e_process.LOG_VALIDITY),
    )


def _not_asked(result: GateResult) -> GateResult:
    """Let a gate speak at a step that does not need it: it may fail, it holds nothing up."""
    if result.verdict is Verdict.PASS:
        return result
    return _with(result, Verdict.PASS, f"not asked at this step ({result.reason})")


def _with(result: GateResult, verdict: Verdict, reason: str) -> GateResult:
    return replace(result, verdict=verdict, reason=reason)


def _verdict(failed: bool, passed: bool) -> Verdict:
    return Verdict.FAIL if failed else Verdict.PASS if passed else Verdict.INCONCLUSIVE


def _exp(log_value: float) -> float:
    return math.exp(min(log_value, LARGEST))


def _share(tally: Tally) -> str:
    share = f" ({tally.events / tally.n:.2%})" if tally.n else ""
    return f"{tally.events:g} of {tally.n}{share}"


def _points(margin: float) -> str:
    return f"{margin * 100:g} point{'s' if margin != 0.01 else ''}"
