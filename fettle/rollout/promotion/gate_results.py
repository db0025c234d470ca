"""Gate results for people: each with both arms' counts, the evidence and its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fettle.rollout.promotion import e_process
from fettle.rollout.promotion import gates as g
from fettle.rollout.promotion.drift import Drift, log_evidence
from fettle.rollout.promotion.gate_verdict import GateResult, Tally, Verdict
from fettle.rollout.promotion.gates import Gates, Thresholds
from fettle.rollout.promotion.one_sample_test import OneSampleTest
from fettle.rollout.promotion.request_records import Arm
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.rollout_state import Phase, RolloutState
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
            found += _bake(gates, bars, plan)
        case _:
            return tuple(found)
    if drift is not None:
        found.append(_drift(drift))
    return tuple(found)


def stale(found: Sequence[GateResult], drift: Drift | None) -> bool:
    """Say whether inputs or late labels have left what the release was made of."""
    labels = any(
        one.name in ("labels", "accuracy") and one.verdict is Verdict.FAIL for one in found
    )
    return labels or (drift is not None and any(drift.alarm.values()))


def _shadow(gates: Gates, bars: Thresholds, plan: RolloutPlan) -> list[GateResult]:
    n = int(gates.disagreement.n[0])
    accuracy = _compared(
        "accuracy",
        gates.accuracy,
        bars,
        "wrong",
        plan.accuracy_margin,
        both=int(gates.accuracy.n[0, 0]),
    )
    disagreement = _bounded(
        "disagreement",
        gates.disagreement,
        f"answers differ from the champion's, limit {plan.disagreement_max:.1%}",
        log_fail=bars.log_fail["disagreement"],
        log_pass=bars.log_pass,
    )
    asked = [one for one in (accuracy, disagreement) if one.name in plan.shadow_gates]
    enough = n >= plan.shadow_requests
    return [
        *asked,
        GateResult(
            name="shadow",
            verdict=Verdict.PASS if enough else Verdict.INCONCLUSIVE,
            reason=f"{n} of {plan.shadow_requests} shadow requests",
        ),
    ]


def _step(
    gates: Gates, bars: Thresholds, plan: RolloutPlan, state: RolloutState
) -> list[GateResult]:
    at = state.step_index
    needs = plan.steps[at].gates
    found = [_errors(gates, bars, plan, float(bars.errors_margin[at]))]
    found.append(_latency(gates, bars, math.exp(float(bars.log_ratio[at]))))
    if "accuracy" in needs or gates.labels.n.any():
        found.append(_compared("accuracy", gates.labels, bars, "wrong", plan.accuracy_margin))
    asked = [
        one if one.name in needs or one.verdict is Verdict.FAIL else _not_asked(one)
        for one in found
    ]
    return [*asked, _split(gates)]


def _bake(gates: Gates, bars: Thresholds, plan: RolloutPlan) -> list[GateResult]:
    limit = float(g.upper_rate(gates.reference)[0]) + plan.errors_margin
    found = [
        _alarm("errors", gates.alarm_errors, f"requests fail, limit {limit:.2%}", bars.log_alarm),
        _alarm(
            "latency",
            gates.alarm_latency,
            f"requests above {plan.latency_p95_ratio:g} x the champion's p95, limit 5 %",
            bars.log_alarm,
        ),
    ]
    if gates.labels.n.any():
        late = _compared("accuracy", gates.labels, bars, "wrong", plan.accuracy_margin)
        found.append(late if late.verdict is Verdict.FAIL else _not_asked(late))
    if gates.alarm_labels.n.any():
        text = "answers are wrong by their late labels"
        found.append(_alarm("labels", gates.alarm_labels, text, bars.log_alarm))
    if gates.alarm_errors.n[0] == 0:
        return [_with(one, Verdict.INCONCLUSIVE, "no request yet") for one in found]
    return found


def _errors(gates: Gates, bars: Thresholds, plan: RolloutPlan, margin: float) -> GateResult:
    result = _compared("errors", gates.errors, bars, "failed", margin)
    if result.verdict is Verdict.INCONCLUSIVE and gates.errors.recent[0] > plan.both_failing_max:
        recent = f"the champion itself fails {gates.errors.recent[0]:.0%} of its recent requests"
        return _with(result, Verdict.INCONCLUSIVE, f"{recent}: held, not judged")
    return result


def _compared(
    name: str,
    test: TwoSampleTest,
    bars: Thresholds,
    word: str,
    margin: float,
    both: int | None = None,
) -> GateResult:
    """Describe a comparison of two arms' rates."""
    champion, challenger = (Tally(float(test.bad[0, at]), int(test.n[0, at])) for at in (0, 1))
    worse = float(e_process.log_e(test.worse)[0])
    same = float(e_process.log_e(e_process.excess(test.expected, test.surplus, test.squared))[0])
    verdict = _verdict(bool(test.failed[0]), bool(test.passed[0]))
    said = {
        Verdict.FAIL: "the challenger is worse",
        Verdict.PASS: f"not worse by {_points(margin)}",
    }.get(verdict, f"neither worse nor proved within {_points(margin)}")
    counts = f"{word} {_share(challenger)} against {_share(champion)}"
    if both is not None:
        counts += ", the same requests"
    failing = verdict is Verdict.FAIL
    return GateResult(
        name=name,
        verdict=verdict,
        reason=f"{said}: {counts}",
        champion=champion,
        challenger=challenger,
        evidence=_exp(worse if failing else same),
        threshold=_exp(bars.log_fail[name] if failing else bars.log_pass),
    )


def _latency(gates: Gates, bars: Thresholds, ratio: float) -> GateResult:
    one = gates.latency
    champion, challenger = (Tally(float(one.slow[0, at]), int(one.n[0, at])) for at in (0, 1))
    verdict = _verdict(bool(one.failed[0]), bool(one.passed[0]))
    said = {
        Verdict.FAIL: "the challenger is slower",
        Verdict.PASS: f"p95 below {ratio:g} x the champion's",
    }.get(verdict, f"neither slower nor proved below {ratio:g} x")
    failing = verdict is Verdict.FAIL
    tau = f"slower than the champion's p95 ({math.exp(float(one.log_tau[0])):.1f} ms)"
    return GateResult(
        name="latency",
        verdict=verdict,
        reason=f"{said}: {_share(challenger)} against {_share(champion)} {tau}",
        champion=champion,
        challenger=challenger,
        evidence=_exp(float(e_process.log_e(one.slower if failing else one.quick)[0])),
        threshold=_exp(bars.log_fail["latency"] if failing else bars.log_pass),
    )


def _bounded(
    name: str, test: OneSampleTest, word: str, *, log_fail: float, log_pass: float
) -> GateResult:
    """Describe a share under a limit."""
    verdict = _verdict(bool(test.failed[0]), bool(test.passed[0]))
    tally = Tally(float(test.events[0]), int(test.n[0]))
    under = float(e_process.log_e(e_process.excess(test.expected, test.events, test.events))[0])
    failing = verdict is Verdict.FAIL
    return GateResult(
        name=name,
        verdict=verdict,
        reason=f"{_share(tally)} {word}",
        challenger=tally,
        evidence=_exp(float(e_process.log_e(test.over)[0]) if failing else under),
        threshold=_exp(log_fail if failing else log_pass),
    )


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
    return GateResult(
        name=result.name,
        verdict=verdict,
        reason=reason,
        champion=result.champion,
        challenger=result.challenger,
        evidence=result.evidence,
        threshold=result.threshold,
    )


def _verdict(failed: bool, passed: bool) -> Verdict:
    return Verdict.FAIL if failed else Verdict.PASS if passed else Verdict.INCONCLUSIVE


def _exp(log_value: float) -> float:
    return math.exp(min(log_value, LARGEST))


def _share(tally: Tally) -> str:
    share = f" ({tally.events / tally.n:.2%})" if tally.n else ""
    return f"{tally.events:g} of {tally.n}{share}"


def _points(margin: float) -> str:
    return f"{margin * 100:g} point{'s' if margin != 0.01 else ''}"
