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

from fettle.rollout.promotion import shadow_gate, student_t
from fettle.rollout.promotion.block_series import BLOCKS
from fettle.rollout.promotion.e_process import (
    EQUAL_PRIOR,
    PSI,
    STAKES,
    WORSE,
    WORSE_PRIOR,
    Floats,
    origin,
)
from fettle.rollout.promotion.gate_thresholds import LAST_LOOKS, WIDE_LOOKS
from fettle.rollout.promotion.rollout_plan import FAST_SHARE, RolloutPlan, Step
from fettle.rollout.promotion.span_test import SPANS_MOST
from fettle.rollout.promotion.tail_threshold import SLOW

Z_95 = 1.645  # normal quantile: 95 % of equal challengers pass within the printed n
RATE_LEAST = 1e-4  # of errors: none at all in the log is not none for ever
# Worlds that no step of the budget decides (`make sim-canary`): clusters must come some twenty
# times in a step, and a margin of one point drowns in more errors than that.
CLUSTERS_LEAST, ERRORS_MOST = 20, 0.1
WIDER = (1.5, 2.0, 3.0, 5.0, 10.0)  # margins offered where the wanted one needs too much


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is known or assumed of the champion: shares of requests, and its latencies in ms.

    `latency_spread` is the standard deviation of the log latency; `cluster_requests` for how many
    requests bad or slow ones stay alike, 0 where they do not. `users`: sticky keys seen, None where
    requests are drawn each by itself. `images`: held out for the shadow, None where not known.
    """

    requests_per_s: float
    errors: float = 0.01
    latency_spread: float = 0.5
    cluster_requests: float = 0.0
    users: int | None = None
    images: int | None = None
    one_wrong: float = 0.01  # pairs that only the one, and as many that only the other gets wrong
    labelled: float = 0.0  # share of live requests whose label comes


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSize:
    """What one gate needs at one step: requests by which half, and 95 %, of equal ones pass.

    Of the shadow: its images. With a sticky key they are users, not requests. None: never.
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
    `accuracy_margin`, `disagreement_limit`: what the shadow asks with its images, the plan's or the
    least that so many decide.
    """

    needs: tuple[SampleSize, ...]
    requests: int | None
    eta_s: float | None
    at_stake_percent: float
    until_dead: dict[str, int]
    accuracy_margin: float
    disagreement_limit: float
    refusals: tuple[str, ...]
    advice: tuple[str, ...]


def forecast(plan: RolloutPlan, traffic: Traffic) -> Forecast:
    """Work the plan out for this traffic."""
    shadow = [_shadow_need(plan, traffic, gate) for gate in plan.shadow_gates]
    live = _live_needs(plan, traffic)
    total = _total(plan, live)
    seconds = None if total is None else _seconds(plan, traffic, total)
    images = plan.shadow_requests if traffic.images is None else traffic.images
    refusals = (*_refused_worlds(plan, traffic, live), *_refusals(plan, [*shadow, *live]))
    return Forecast(
        needs=(*shadow, *live),
        requests=total,
        eta_s=seconds,
        at_stake_percent=100
        * max(
            step.weight * min(1, step.margin_multiplier * plan.errors_margin) for step in plan.steps
        ),
        until_dead={_name(step): _until_dead(plan, step) for step in plan.steps},
        accuracy_margin=shadow_gate.accuracy_margin(plan, images),
        disagreement_limit=shadow_gate.disagreement_limit(plan, images),
        refusals=refusals,
        advice=tuple(_advice(plan, traffic, seconds, refused=bool(refusals))),
    )


def _live_needs(plan: RolloutPlan, traffic: Traffic) -> list[SampleSize]:
    """Go through the steps."""
    return [_live_need(plan, traffic, step, gate) for step in plan.steps for gate in step.gates]


def _live_need(plan: RolloutPlan, traffic: Traffic, step: Step, gate: str) -> SampleSize:
    w, times = step.weight, step.margin_multiplier
    if gate == "latency":
        ratio = 1 + times * (plan.latency_p95_ratio - 1)
        half, most = _span_need(plan, step, _latency_effect(traffic, w, ratio))
    elif gate == "errors" and times == 1:
        effect = plan.errors_margin * math.sqrt(w * (1 - w) / max(traffic.errors, RATE_LEAST))
        half, most = _span_need(plan, step, effect)
    elif gate == "errors":
        margin = min(1.0, times * plan.errors_margin)
        half, most = _excess_need(traffic.errors, w, margin, -math.log(plan.alpha_wide))
    else:
        bar = -math.log(plan.alpha_promote)
        found = _excess_need(2 * traffic.one_wrong, w, plan.accuracy_margin, bar)
        # only labelled requests count
        half, most = (n / traffic.labelled if traffic.labelled else math.inf for n in found)
    return SampleSize(
        step=_name(step),
        weight_percent=step.weight_percent,
        gate=gate,
        half=_whole(half),
        most=_whole(most),
    )


def _shadow_need(plan: RolloutPlan, traffic: Traffic, gate: str) -> SampleSize:
    """Return how many images the shadow asks: it is judged once, when all are answered."""
    images = plan.shadow_requests if traffic.images is None else traffic.images
    need = images or None
    return SampleSize(step="shadow", weight_percent=0.0, gate=gate, half=need, most=need)


def _excess_need(rate: float, w: float, margin: float, bar: float) -> tuple[float, float]:
    odds = w / (1 - w)
    outcomes = [
        (w * rate, -STAKES - PSI),
        ((1 - w) * rate, STAKES * odds - PSI * odds * odds),
    ]
    return _walk(outcomes, STAKES * margin * w, EQUAL_PRIOR, bar)


def _latency_effect(traffic: Traffic, w: float, ratio: float) -> float:
    """Return the difference of an equal challenger over its standard error, of one request.

    Log-normal latencies: it exceeds ratio x p95 in the share `beyond`, the champion its p95 in 5 %.
    """
    z = 1.6449 + math.log(ratio) / traffic.latency_spread
    beyond = 0.5 * math.erfc(z / math.sqrt(2))
    return (SLOW - beyond) / math.sqrt(beyond / w + SLOW / (1 - w))


def _enough(alpha: float, z: float) -> float:
    """Return the mean of t that passes a look with the chance of z.

    Student's t of SPANS_MOST spans, as a normal (Abramowitz and Stegun 1964, 26.7.10).
    """
    degrees = SPANS_MOST - 1
    bar = student_t.critical(degrees, alpha)
    return bar * (1 - 1 / (4 * degrees)) + z * math.sqrt(1 + bar * bar / (2 * degrees))


def _span_need(plan: RolloutPlan, step: Step, effect: float) -> tuple[float, float]:
    """Return the looks by which half, and 95 %, of equal ones pass by their spans.

    Beyond the budget: what a last look would need.
    """
    last = step.margin_multiplier == 1
    alpha = plan.alpha_promote if last else plan.alpha_wide
    block = max(1, plan.step_budget_requests // BLOCKS)
    found = []
    for z in (0.0, Z_95):
        for blocks, share in (LAST_LOOKS if last else WIDE_LOOKS).items():
            enough = _enough(alpha * share, z)
            if effect * math.sqrt(blocks * block) >= enough:
                found.append(float(blocks * block))
                break
        else:
            found.append((enough / effect) ** 2)
    return found[0], found[1]


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
    bar = -math.log(FAST_SHARE["errors"] * plan.alpha_fail("errors"))
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


def _refused_worlds(plan: RolloutPlan, traffic: Traffic, live: list[SampleSize]) -> list[str]:
    """Name the kinds of traffic in which the error rates do not hold, or nothing is decided."""
    found = []
    least = plan.step_budget_requests / CLUSTERS_LEAST
    if traffic.cluster_requests > least:
        found.append(
            f"clusters: bad or slow requests stay alike over {traffic.cluster_requests:.0f} "
            f"requests, more than a twentieth of the step's budget ({least:.0f}): raise "
            "promote.step_budget_requests"
        )
    if traffic.errors > ERRORS_MOST:
        found.append(
            f"errors: the champion fails {traffic.errors:.1%}, more than {ERRORS_MOST:.0%}: mend "
            "it first, or widen promote.errors_margin"
        )
    needs = [need.most for need in live if need.step == _name(plan.steps[-1])]
    if traffic.users is not None and all(needs):
        most = max(need or 0 for need in needs)
        if traffic.users < most:
            found.append(
                f"sticky users: the log shows {traffic.users}, the last step needs {most}, each of "
                "whom is drawn once: drop promote.sticky_key, or widen the margins"
            )
    return found


def _refusals(plan: RolloutPlan, needs: list[SampleSize]) -> list[str]:
    """Name every gate that would not decide within the step's budget in 95 of 100 rollouts."""
    budget = plan.step_budget_requests
    found = []
    for one in needs:
        if one.step == "shadow" and one.most is None:
            found.append("shadow: no held-out image is there to ask")
        elif one.most is None:
            found.append(f"{one.step}: {one.gate} can never pass with this traffic")
        elif one.step != "shadow" and one.most > budget:
            found.append(
                f"{one.step}: {one.gate} needs {one.most} requests for 95 of 100 equal challengers "
                f"to pass, the budget is {budget} (promote.step_budget_requests)"
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
        margin = min(1.0, times * plan.errors_margin)
        rate = max(traffic.errors, RATE_LEAST)
        effect = margin * math.sqrt(last.weight * (1 - last.weight) / rate)
        first, share = next(iter(LAST_LOOKS.items()))
        most = (_enough(plan.alpha_promote * share, Z_95) / effect) ** 2
        budget = math.ceil(most * BLOCKS / first)
        if most <= min(plan.step_budget_requests, traffic.requests_per_s * day_s):
            found.append(
                f"promote.errors_margin {margin:g} with promote.step_budget_requests {budget} "
                f"needs {math.ceil(most)} requests at {last.weight_percent:g} %"
            )
            break
    return found


def _name(step: Step) -> str:
    return f"{step.weight_percent:g} %"


def _whole(n: float) -> int | None:
    return math.ceil(n) if math.isfinite(n) else None
