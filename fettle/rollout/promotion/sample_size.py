"""Sample size and power of a plan: requests each step needs, how long, what is at stake.

An equal challenger's log evidence is a random walk with a known mean g and variance v a request.
It stands above the bar after n requests with probability 95 % where n g - 1.645 sqrt(n v) = bar
(central limit; the best single bet, so the mixture does a little better). Steps add up by their
medians, and their spreads in squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fettle.rollout.promotion.e_process import (
    BETTER,
    EQUAL_PRIOR,
    PSI,
    STAKES,
    WORSE,
    WORSE_PRIOR,
    Floats,
    origin,
)
from fettle.rollout.promotion.latency_gate import BLOCKS, PRIOR_BLOCKS, PRIOR_EFFECT, SLOW, WARM_UP
from fettle.rollout.promotion.latency_gate import WIDER as WIDER_EFFECT
from fettle.rollout.promotion.rollout_plan import RolloutPlan, Step

Z_95 = 1.645  # normal quantile: 95 % of equal challengers pass within the printed n
CLUSTERED = 1.5  # independent requests show 1.1 at most over 12,000 (95 %)
WIDER = (1.5, 2.0, 3.0, 5.0, 10.0)  # margins offered where the wanted one needs too much


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is known or assumed of the champion: shares of requests, and its latencies in ms.

    `latency_spread` is the standard deviation of the log latency; `design_effect` how slow requests
    cluster (latency_gate.py), 1 where they do not.
    """

    requests_per_s: float
    errors: float = 0.01
    latency_spread: float = 0.5
    design_effect: float = 1.0
    disagreement: float = 0.02
    one_wrong: float = 0.01  # pairs that only the one, and as many that only the other gets wrong
    labelled: float = 0.0  # share of live requests whose label comes


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSize:
    """What one gate needs at one step: requests by which half, and 95 %, of equal ones pass.

    With a sticky key they are users, not requests. None: never.
    """

    step: str
    weight_percent: float
    gate: str
    half: int | None
    most: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The whole plan: user requests in all, the time, and reasons why it cannot work as it is.

    `at_stake_percent`: the largest share of all requests that a step may cost in excess.
    `until_dead`: challenger requests that a dead one gets before the rollback, by step.
    """

    needs: tuple[SampleSize, ...]
    requests: int | None
    eta_s: float | None
    at_stake_percent: float
    until_dead: dict[str, int]
    refusals: tuple[str, ...]
    advice: tuple[str, ...]


def forecast(plan: RolloutPlan, traffic: Traffic) -> Forecast:
    """Work the plan out for this traffic."""
    shadow = [_shadow_need(plan, traffic, gate) for gate in plan.shadow_gates]
    live = _live_needs(plan, traffic)
    total = _total(plan, live)
    seconds = None if total is None else _seconds(plan, traffic, total)
    refusals = tuple(_refusals(plan, traffic, [*shadow, *live]))
    return Forecast(
        needs=(*shadow, *live),
        requests=total,
        eta_s=seconds,
        at_stake_percent=100
        * max(
            step.weight * min(1, step.margin_multiplier * plan.errors_margin) for step in plan.steps
        ),
        until_dead={_name(step): _until_dead(plan, step) for step in plan.steps},
        refusals=refusals,
        advice=tuple(_advice(plan, traffic, seconds, refused=bool(refusals))),
    )


def _live_needs(plan: RolloutPlan, traffic: Traffic) -> list[SampleSize]:
    """Go through the steps; the champion's requests so far tell how its slow ones cluster."""
    needs: list[SampleSize] = []
    known = 0.0
    for step in plan.steps:
        of_step = [_live_need(plan, traffic, step, gate, known) for gate in step.gates]
        known += (1 - step.weight) * max(need.half or 0 for need in of_step)
        needs += of_step
    return needs


def _live_need(
    plan: RolloutPlan, traffic: Traffic, step: Step, gate: str, known: float
) -> SampleSize:
    w = step.weight
    if gate == "latency":
        ratio = 1 + step.margin_multiplier * (plan.latency_p95_ratio - 1)
        half, most = _latency_need(plan, traffic, w, ratio, known)
    else:
        rate = traffic.errors if gate == "errors" else traffic.one_wrong * 2
        times = step.margin_multiplier if gate == "errors" else 1.0
        margin = plan.errors_margin if gate == "errors" else plan.accuracy_margin
        half, most = _excess_need(plan, rate, w, min(1.0, times * margin))
        if gate == "accuracy":  # only labelled requests count
            half, most = (
                n / traffic.labelled if traffic.labelled else math.inf for n in (half, most)
            )
    return SampleSize(
        step=_name(step),
        weight_percent=step.weight_percent,
        gate=gate,
        half=_whole(half),
        most=_whole(most),
    )


def _shadow_need(plan: RolloutPlan, traffic: Traffic, gate: str) -> SampleSize:
    if gate == "accuracy":
        # a pair is two requests at w = 1/2, one on each arm, and only one of them may be wrong
        p = traffic.one_wrong
        outcomes = [(p, -STAKES - PSI), (p, STAKES - PSI)]
        half, most = _walk(outcomes, STAKES * plan.accuracy_margin, EQUAL_PRIOR, _pass_bar(plan))
    else:
        outcomes = [(traffic.disagreement, -STAKES - PSI)]
        drift = STAKES * plan.disagreement_max
        half, most = _walk(outcomes, drift, EQUAL_PRIOR, _pass_bar(plan))
    floor = plan.shadow_requests
    return SampleSize(
        step="shadow",
        weight_percent=0.0,
        gate=gate,
        half=_whole(max(half, floor)),
        most=_whole(max(most, floor)),
    )


def _excess_need(plan: RolloutPlan, rate: float, w: float, margin: float) -> tuple[float, float]:
    odds = w / (1 - w)
    outcomes = [
        (w * rate, -STAKES - PSI),
        ((1 - w) * rate, STAKES * odds - PSI * odds * odds),
    ]
    return _walk(outcomes, STAKES * margin * w, EQUAL_PRIOR, _pass_bar(plan))


def _latency_need(
    plan: RolloutPlan, traffic: Traffic, w: float, ratio: float, known: float
) -> tuple[float, float]:
    """Take log-normal latencies: an equal challenger exceeds ratio x p95 so often.

    Each gain is divided by the design effect, which falls as the champion's requests are seen.
    """
    z = 1.6449 + math.log(ratio) / traffic.latency_spread
    beyond = 0.5 * math.erfc(z / math.sqrt(2))
    gains = [origin(BETTER, np.array([w]), np.array([arm]))[0] for arm in (True, False)]
    found = [0.0, 0.0]
    for index, scatter in enumerate((0.0, Z_95)):
        for _ in range(20):  # settles within ten: the effect falls ever more slowly
            effect = _mean_effect(known, (1 - w) * found[index], traffic.design_effect, scatter)
            outcomes = [(w * beyond, gains[0] / effect), ((1 - w) * SLOW, gains[1] / effect)]
            found[index] = _walk(outcomes, np.zeros(len(BETTER)), EQUAL_PRIOR, _pass_bar(plan))[
                index
            ]
    warm_up = max(0.0, WARM_UP - known) / (1 - w)
    return found[0] + warm_up, found[1] + warm_up


def _mean_effect(known: float, more: float, effect: float, scatter: float) -> float:
    """Return the harmonic mean over the step: gains are divided by it."""
    points = [known + more * (at + 0.5) / 16 for at in range(16)]
    return 16 / sum(1 / _expected_effect(seen, effect, scatter) for seen in points)


def _expected_effect(champion_requests: float, effect: float, scatter: float) -> float:
    """Return what latency.design_effect will say after so many, from the slower of its scales.

    scatter: how many standard errors of a variance, sqrt(2/n), above its mean.
    """
    real = champion_requests / float(BLOCKS.max())
    n = real + PRIOR_BLOCKS
    error = math.sqrt(2 / n)
    mean = (real * effect * (1 + scatter * error) + PRIOR_BLOCKS * PRIOR_EFFECT) / n
    return 1 + WIDER_EFFECT * max(0.0, mean * (1 + error) - 1)


def _walk(
    outcomes: list[tuple[float, Floats]], drift: Floats, prior: Floats, bar: float
) -> tuple[float, float]:
    """Return after how many requests half, and 95 %, of the walks stand above the bar.

    outcomes: (chance, log gain of each bet); drift: what each bet gains at every request.
    """
    mean = drift + sum(p * gain for p, gain in outcomes)
    variance: npt.NDArray[np.float64] = np.asarray(sum(p * gain**2 for p, gain in outcomes))
    gap = bar - prior
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.where(mean > 0, gap / mean, np.inf)
        spread = Z_95 * np.sqrt(variance)
        root = (spread + np.sqrt(spread**2 + 4 * mean * gap)) / (2 * mean)
        most = np.where(mean > 0, root**2, np.inf)
    best = int(np.argmin(most))
    return float(half[best]), float(most[best])


def _until_dead(plan: RolloutPlan, step: Step) -> int:
    """Return how many failures in a row roll back at this step."""
    gain = origin(WORSE, np.array([step.weight]), np.array([True]))[0]
    bar = -math.log(plan.alpha_fail("errors"))
    return math.ceil(float(((bar - WORSE_PRIOR) / gain).min()))


def _total(plan: RolloutPlan, live: list[SampleSize]) -> int | None:
    """Add the steps up: the slowest gate of each, and the bake."""
    medians, spreads = float(plan.bake_requests), 0.0
    for step in plan.steps:
        of_step = [need for need in live if need.step == _name(step)]
        if any(need.half is None or need.most is None for need in of_step):
            return None
        slowest = max(of_step, key=lambda need: need.most or 0)
        half, most = slowest.half or 0, slowest.most or 0
        medians += half
        spreads += (most - half) ** 2
    return math.ceil(medians + math.sqrt(spreads))


def _seconds(plan: RolloutPlan, traffic: Traffic, total: int) -> float | None:
    if traffic.requests_per_s <= 0:
        return None
    waits = plan.step_min_s * (len(plan.steps) + 1) + plan.bake_s
    return max(waits, total / traffic.requests_per_s)


def _refusals(plan: RolloutPlan, traffic: Traffic, needs: list[SampleSize]) -> list[str]:
    """Name every gate that would not decide within the step's budget in 95 of 100 rollouts."""
    budget = plan.step_budget_requests
    found = []
    clusters = f": slow requests come in clusters (design effect {traffic.design_effect:.1f})"
    for one in needs:
        clustered = one.gate == "latency" and traffic.design_effect > CLUSTERED
        why = clusters if clustered else ""
        if one.most is None:
            found.append(f"{one.step}: {one.gate} can never pass with this traffic{why}")
        elif one.most > budget:
            found.append(
                f"{one.step}: {one.gate} needs {one.most} requests for 95 of 100 equal challengers "
                f"to pass, the budget is {budget} (promote.step_budget_requests){why}"
            )
    return found


def _advice(
    plan: RolloutPlan, traffic: Traffic, seconds: float | None, *, refused: bool
) -> list[str]:
    """Offer what shortens the wait; the bar itself is never lowered here."""
    day_s = 86_400
    if not refused and seconds is not None and seconds <= day_s:
        return []
    found = ["replay captured or held-out requests in shadow: pairs need far fewer than two arms"]
    last = plan.steps[-1]
    for times in WIDER:
        margin = times * plan.errors_margin
        _, most = _excess_need(plan, traffic.errors, last.weight, min(1.0, margin))
        if most <= min(plan.step_budget_requests, traffic.requests_per_s * day_s):
            found.append(
                f"promote.errors_margin {margin:g} needs {math.ceil(most)} requests at "
                f"{last.weight_percent:g} %"
            )
            break
    return found


def _pass_bar(plan: RolloutPlan) -> float:
    return -math.log(plan.alpha_promote)


def _name(step: Step) -> str:
    return f"{step.weight_percent:g} %"


def _whole(n: float) -> int | None:
    return math.ceil(n) if math.isfinite(n) else None
