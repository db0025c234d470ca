"""Measure how often a rollout decides wrongly: `make sim-canary`.

`--only PART …` measures some parts and keeps the other rows (see PARTS); `--rollouts N` how many a
scenario, 10,000 unless told. Each row is written as soon as it is known, so a run that is stopped
goes on with `--only`. It measures no time: it may run on a busy machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import fields
from zlib import crc32

import numpy as np
from scipy.stats import beta

from benchmarks import table
from benchmarks.canary import ours, rivals, worlds
from benchmarks.canary.ours import PROMOTED, ROLLED_BACK, Outcomes
from benchmarks.canary.worlds import Challenger
from benchmarks.table import Row
from fettle.params_schema import Promote, PromoteStep
from fettle.rollout.promotion.rollout_plan import RolloutPlan
from fettle.rollout.promotion.sample_size import Traffic, forecast

HORIZON = 30_000  # user requests; the goal's power is asked at 25,000
POWER_REQUESTS = 25_000
WRONG_MAX, UPPER_MAX = 0.01, 0.013
CHUNK = 2500  # rollouts at once: their arrays fit the cache
CHUNK_STICKY = 250  # their users do not
EQUAL = Challenger()
AT_MARGIN = {
    "errors +1 point": Challenger(plus=0.01),
    "p95 x1.2": Challenger(slow=1.2),
}
BEYOND = {
    "errors +2 points": Challenger(plus=0.02),
    "p95 x1.4": Challenger(slow=1.4),
    "accuracy -1 point": Challenger(wrong=0.01, disagree=0.03),
    "5 % of the answers differ": Challenger(disagree=0.05),
    "errors leak +2 points over 20,000 requests": Challenger(leak=0.02),
    "errors leak +5 points over 20,000 requests": Challenger(leak=0.05),
}
PARTS = (*worlds.KINDS, "beyond", "rollback", "rivals", "rivals at 6,000 a minute")


def default_plan() -> RolloutPlan:
    """Return the plan of params.yaml as it ships."""
    return RolloutPlan.of(Promote())


def simulate(
    kind: str, challenger: Challenger, plan: RolloutPlan, rollouts: int, *, horizon: int = HORIZON
) -> Outcomes:
    """Roll out so many times, in chunks, each with its own seed."""
    size = CHUNK_STICKY if worlds.KINDS[kind].sticky else CHUNK
    found = []
    for at in range(0, rollouts, size):
        seed = crc32(f"{kind} {challenger} {at}".encode())
        world = worlds.make(kind, challenger, min(size, rollouts - at), seed)
        found.append(ours.roll(world, plan, requests_max=horizon))
    names = [one.name for one in fields(Outcomes)]
    return Outcomes(*(np.concatenate([getattr(one, name) for one in found]) for name in names))


def upper(hits: int, n: int) -> float:
    """Return the exact 95 % upper bound of a share (Clopper and Pearson 1934, one-sided)."""
    return 1.0 if hits == n else float(beta.ppf(0.95, hits + 1, n - hits))


def wrong(what: str, ends: np.ndarray, end: int, *, note: str = "") -> Row:
    """Make the row of a share of wrong ends, with its exact bound."""
    hits, n = int((ends == end).sum()), len(ends)
    high = upper(hits, n)
    met = hits / n <= WRONG_MAX and high <= UPPER_MAX
    goal = f"<= {WRONG_MAX:g}, 95 % bound <= {UPPER_MAX:g}"
    return Row(what, hits / n, 0.0, high, "share", n, goal, met, note)


def of_world(kind: str, rollouts: int) -> Iterator[Row]:
    """Roll out an equal challenger and those at a margin in one world."""
    plan = default_plan()
    equal = simulate(kind, EQUAL, plan, rollouts)
    yield wrong(f"{kind}: P(roll back an equal challenger)", equal.end, ROLLED_BACK)
    yield from power(kind, plan, equal)
    for name, challenger in AT_MARGIN.items():
        out = simulate(kind, challenger, plan, rollouts)
        yield wrong(f"{kind}: P(promote at the margin, {name})", out.end, PROMOTED)


def power(kind: str, plan: RolloutPlan, equal: Outcomes) -> Iterator[Row]:
    """Say how many equal challengers are promoted in time; a goal only where the issue sets one."""
    asked = kind == "plain"
    goal = ">= 0.95" if asked else ""
    printed = forecast(plan, Traffic(requests_per_s=100)).requests or 0
    for name, limit in (("25,000", POWER_REQUESTS), ("the planned n", printed)):
        in_time = (equal.end == PROMOTED) & (equal.requests <= limit)
        n, hits = len(in_time), int(in_time.sum())
        low = float(beta.ppf(0.05, hits, n - hits + 1)) if hits else 0.0
        yield Row(
            f"{kind}: P(promote an equal challenger within {name} requests)",
            hits / n,
            low,
            1.0,
            "share",
            n,
            goal,
            low >= 0.95 or not asked,
            f"the plan printed {printed} requests" if name == "the planned n" else "",
        )
    promoted = equal.requests[equal.end == PROMOTED]
    if promoted.size:
        half, most = np.quantile(promoted, [0.5, 0.95])
        what = f"{kind}: requests until an equal challenger is promoted, median (high: p95)"
        yield Row(what, half, float(promoted.min()), most, "requests", promoted.size, "", True)


def beyond(rollouts: int) -> Iterator[Row]:
    """Roll out challengers beyond a margin, wrong in shadow, or leaking, in the plain world."""
    for name, challenger in BEYOND.items():
        out = simulate("plain", challenger, default_plan(), rollouts)
        yield wrong(f"plain: P(promote, {name})", out.end, PROMOTED)


def rollback(rollouts: int) -> Iterator[Row]:
    """Count the challenger's requests until it is rolled back, at 10 % weight."""
    steps = [PromoteStep(weight_percent=10), PromoteStep(weight_percent=50)]
    plan = RolloutPlan.of(Promote(steps=steps))
    for name, times, most in (
        ("dead", 100.0, 10),
        ("5x errors", 5.0, 500),
        ("3x errors", 3.0, 1500),
    ):
        out = simulate("plain", Challenger(times=times), plan, rollouts)
        back = np.where(out.end == ROLLED_BACK, out.canary_requests, np.inf)
        half, p95 = (float(one) for one in np.quantile(back, [0.5, 0.95]))
        what, goal = f"{name}: challenger requests until rollback at 10 %, p95", f"<= {most}"
        if np.isinf(p95):
            why = f"{np.isinf(back).mean():.1%} were not rolled back within {HORIZON} requests"
            yield Row(what, None, None, None, "requests", len(back), goal, False, why)
            continue
        note = "low: the median"
        yield Row(what, p95, half, p95, "requests", len(back), goal, p95 <= most, note)


def against(rollouts: int, per_minute: int) -> Iterator[Row]:
    """Judge the same worlds by other tools' rules, at a stated traffic."""
    kinds = list(worlds.KINDS) if per_minute <= 1000 else ["plain"]
    cases = {"equal": EQUAL, **AT_MARGIN, "3x errors": Challenger(times=3.0)}
    for kind in [kind for kind in kinds if not worlds.KINDS[kind].sticky]:
        for case, challenger in cases.items():
            prefix = f"{per_minute}/min, {kind}, {case}"
            end = ROLLED_BACK if case == "equal" else PROMOTED
            out = simulate(kind, challenger, default_plan(), rollouts)
            yield from _compared(f"{prefix}: fettle", end, out.end, _minutes(out, per_minute))
            for rule, run in rivals.RULES.items():
                for careful in (False, True) if rule != "Kayenta" else (False,):
                    seed = crc32(prefix.encode())
                    world = worlds.make(kind, challenger, rollouts, seed)
                    ends = run(world, per_minute, careful=careful)
                    name = f"{rule}{', careful bounds' if careful else ''}"
                    yield from _compared(f"{prefix}: {name}", end, ends.end, ends.minutes)


def _compared(what: str, end: int, ends: np.ndarray, minutes: np.ndarray) -> Iterator[Row]:
    verb = "rolled back" if end == ROLLED_BACK else "promoted"
    hits, n = int((ends == end).sum()), len(ends)
    yield Row(f"{what} {verb}", hits / n, 0.0, upper(hits, n), "share", n, "", True)
    right = minutes[(ends != end) & (ends != ours.HELD)]
    if right.size:
        half, p95 = np.quantile(right, [0.5, 0.95])
        what = f"{what}, minutes to the right decision, median (high: p95)"
        yield Row(what, half, float(right.min()), p95, "min", right.size, "", True)


def _minutes(out: Outcomes, per_minute: int) -> np.ndarray:
    """Return the minutes until the challenger had all traffic or none, least waits included."""
    requests = np.where(out.end == PROMOTED, out.whole, out.requests)
    least = (
        default_plan().step_min_s / 60 * np.where(out.end == PROMOTED, len(default_plan().steps), 0)
    )
    minutes: np.ndarray = np.maximum(requests / per_minute, least)
    return minutes


def part(name: str, rollouts: int) -> Iterator[Row]:
    """Return the rows of one part."""
    others: dict[str, Callable[[], Iterator[Row]]] = {
        "beyond": lambda: beyond(rollouts),
        "rollback": lambda: rollback(rollouts),
        "rivals": lambda: against(max(50, rollouts // 20), 1000),
        "rivals at 6,000 a minute": lambda: against(max(20, rollouts // 100), 6000),
    }
    return others[name]() if name in others else of_world(name, rollouts)


def main() -> None:
    """Simulate the chosen parts; merge each row into benchmarks/results/sim-canary.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--rollouts", type=int, default=10_000)
    asked = parser.parse_args()
    for name in asked.only:
        for row in part(name, asked.rollouts):
            table.write("sim-canary", "make sim-canary", [row], quiet=True)
            print(f"{row.what}: {row.value} (to {row.high}) {row.note}", flush=True)


if __name__ == "__main__":
    main()
