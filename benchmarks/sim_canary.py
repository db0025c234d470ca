"""Measure how often a rollout decides wrongly: `make sim-canary`.

`--only PART …` measures some parts and keeps the other rows (see PARTS); `--rollouts N` how many a
cell: 10,000 in the NAMED worlds and 2,000 in the others unless told. Each row is written as soon as
it is known, so a run that is stopped goes on with `--only`. It measures no time: it may run on a
busy machine. Every error rate has the power beside it, in its note: what was promoted, what held.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import beta

from benchmarks import benchmark_row, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.canary import rival_rows, worlds
from benchmarks.canary.ours import PROMOTED, ROLLED_BACK, Length, Outcomes
from benchmarks.canary.simulated_cell import (
    AT_MARGIN,
    EQUAL,
    HORIZON,
    POWER_REQUESTS,
    default_plan,
    ends_of,
    median_to_p95,
    seeds,
    simulate,
    wrong,
)
from benchmarks.canary.worlds import Challenger
from fettle.params_schema import Promote, PromoteStep
from fettle.rollout.promotion import shadow_gate
from fettle.rollout.promotion.rollout_plan import RolloutPlan

WATCH_REQUESTS = 20_000  # after a promotion: two days of the daily cycle
NAMED, OTHERS = 10_000, 2000  # rollouts a cell
POWER_KINDS = ("plain", "bursts", "shared wandering latency", "daily cycle")
POWER_LEAST = 0.9
IMAGES = (300, 899, 2000, 10_000)  # held out for the shadow
BURSTING = {"+1 point by its own bursts": Challenger(bursts=0.01)}
GIVEN_UP = {
    "hangs on 2 % of its requests": Challenger(hangs=0.02),
    "hangs on 5 % of its requests": Challenger(hangs=0.05),
    "hangs on 10 % of its requests": Challenger(hangs=0.1),
    "refuses 2 % of its requests": Challenger(refuses=0.02),
}
BEYOND = {
    "errors +2 points": Challenger(plus=0.02),
    "p95 x1.4": Challenger(slow=1.4),
    "errors leak +2 points over 20,000 requests": Challenger(leak=0.02),
    "errors leak +5 points over 20,000 requests": Challenger(leak=0.05),
}
PARTS = (
    *worlds.KINDS,
    "shadow",
    "watch",
    "beyond",
    "rollback",
    "rivals",
    "rivals at 6,000 a minute",
)


def of_world(kind: str, rollouts: int) -> Iterator[BenchmarkRow]:
    """Roll out an equal challenger and those at a margin in one world."""
    plan = default_plan()
    equal, drawn = simulate(kind, EQUAL, plan, rollouts), seeds(kind, EQUAL, rollouts)
    power_note = ends_of(equal, "the equal ones")
    what = f"{kind}: P(roll back an equal challenger)"
    yield wrong(what, equal.end, ROLLED_BACK, drawn, note=power_note)
    yield from power(kind, equal, drawn)
    for name, challenger in at_margin(kind).items():
        out = simulate(kind, challenger, plan, rollouts)
        drawn = seeds(kind, challenger, rollouts)
        note = f"{ends_of(out, 'these')}; {power_note}"
        yield wrong(f"{kind}: P(promote, {name})", out.end, PROMOTED, drawn, note=note)


def at_margin(kind: str) -> dict[str, Challenger]:
    """Return the challengers of a world that must not be promoted."""
    if kind.startswith("own error bursts"):
        return BURSTING | {"errors +1 point": AT_MARGIN["errors +1 point"]}
    return AT_MARGIN | (GIVEN_UP if kind == "callers who give up" else {})


def power(kind: str, equal: Outcomes, drawn: Sequence[int]) -> Iterator[BenchmarkRow]:
    """Say how many equal challengers are promoted in time; a goal only where the issue sets one."""
    in_time = (equal.end == PROMOTED) & (equal.requests <= POWER_REQUESTS)
    n, hits = len(in_time), int(in_time.sum())
    yield benchmark_row.measured(
        f"{kind}: P(promote an equal challenger within 25,000 requests)",
        hits / n,
        low=float(beta.ppf(0.05, hits, n - hits + 1)) if hits else 0.0,
        high=1.0,
        unit="share",
        n=n,
        seeds=drawn,
        goal=f">= {POWER_LEAST:g}" if kind in POWER_KINDS else "",
        holds=hits / n >= POWER_LEAST,
    )
    promoted = equal.requests[equal.end == PROMOTED]
    if promoted.size:
        what = f"{kind}: requests until an equal challenger is promoted"
        yield median_to_p95(what, promoted, "requests", drawn)


def shadow(rollouts: int) -> Iterator[BenchmarkRow]:
    """Ask a finite set of images once each: what passes, what is rolled back, what is paused."""
    plan = default_plan()
    for images in IMAGES:
        margin = shadow_gate.accuracy_margin(plan, images)
        lost = Challenger(wrong=margin, disagree=0.02 + margin)
        length = Length(0, shadow_images=images, history=False)
        equal = simulate("plain", EQUAL, plan, rollouts, length=length)
        passes = float(equal.reached_users.mean())
        note = f"of the equal ones {passes:.1%} pass, the rest is paused for a person"
        drawn = seeds("plain", EQUAL, rollouts)
        what = f"shadow of {images} images: P(roll back an equal challenger)"
        yield wrong(what, equal.end, ROLLED_BACK, drawn, note=note)
        worse = simulate("plain", lost, plan, rollouts, length=length)
        drawn = seeds("plain", lost, rollouts)
        what = (
            f"shadow of {images} images: P(pass at its margin, accuracy -{100 * margin:.3g} points)"
        )
        let_in = np.where(worse.reached_users > 0, PROMOTED, worse.end)
        yield wrong(what, let_in, PROMOTED, drawn, note=note)


def watch(rollouts: int) -> Iterator[BenchmarkRow]:
    """Go on for days after the promotion: what is undone, and how often a person is asked."""
    length = Length(HORIZON, watch=WATCH_REQUESTS)
    for kind in ("daily cycle", "plain"):
        out = simulate(kind, EQUAL, default_plan(), rollouts, length=length)
        drawn = seeds(kind, EQUAL, rollouts)
        promoted = out.whole > 0
        paged = float(out.alarmed[promoted].mean()) if promoted.any() else 0.0
        note = f"a person was asked in {paged:.1%} of them; {ends_of(out, 'all')}"
        what = f"{kind}, watched for {WATCH_REQUESTS:,} requests: P(undo an equal challenger)"
        yield wrong(what, out.end[promoted], ROLLED_BACK, drawn, note=note)


def beyond(rollouts: int) -> Iterator[BenchmarkRow]:
    """Roll out challengers beyond a margin, wrong in shadow, or leaking, in the plain world."""
    for name, challenger in BEYOND.items():
        out = simulate("plain", challenger, default_plan(), rollouts)
        drawn = seeds("plain", challenger, rollouts)
        note = ends_of(out, "these")
        yield wrong(f"plain: P(promote, {name})", out.end, PROMOTED, drawn, note=note)


def rollback(rollouts: int) -> Iterator[BenchmarkRow]:
    """Count the challenger's requests until it is rolled back, at 10 % weight."""
    steps = [PromoteStep(weight_percent=10), PromoteStep(weight_percent=50)]
    plan = RolloutPlan.of(Promote(steps=steps))
    for name, times, most in (
        ("dead", 100.0, 10),
        ("5x errors", 5.0, 500),
        ("3x errors", 3.0, 1500),
    ):
        challenger = Challenger(times=times)
        out, drawn = (
            simulate("plain", challenger, plan, rollouts),
            seeds("plain", challenger, rollouts),
        )
        back = np.where(out.end == ROLLED_BACK, out.canary_requests, np.inf)
        half, p95 = (float(one) for one in np.quantile(back, [0.5, 0.95]))
        what, goal = f"{name}: challenger requests until rollback at 10 %, p95", f"<= {most}"
        if np.isinf(p95):
            why = f"{np.isinf(back).mean():.1%} were not rolled back within {HORIZON} requests"
            yield benchmark_row.without_value(
                what, "requests", goal, n=len(back), seeds=drawn, reason=why
            )
            continue
        yield benchmark_row.measured(
            what,
            p95,
            low=half,
            high=p95,
            unit="requests",
            n=len(back),
            seeds=drawn,
            goal=goal,
            holds=p95 <= most,
            note="low: the median",
        )


def part(name: str, rollouts: int) -> Iterator[BenchmarkRow]:
    """Return the rows of one part."""
    others: dict[str, Callable[[], Iterator[BenchmarkRow]]] = {
        "beyond": lambda: beyond(rollouts),
        "rollback": lambda: rollback(rollouts),
        "shadow": lambda: shadow(rollouts),
        "watch": lambda: watch(rollouts),
        "rivals": lambda: rival_rows.against(max(50, rollouts // 20), 1000),
        "rivals at 6,000 a minute": lambda: rival_rows.against(max(20, rollouts // 100), 6000),
    }
    return others[name]() if name in others else of_world(name, rollouts)


def main() -> None:
    """Simulate the chosen parts; merge each row into benchmarks/results/sim-canary.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--rollouts", type=int)
    asked = parser.parse_args()
    origin = row_origin.take(row_origin.command_line("benchmarks.sim_canary"))
    for name in asked.only:
        for row in part(name, asked.rollouts or (NAMED if name in POWER_KINDS else OTHERS)):
            table.write("sim-canary", [row], origin, quiet=True)
            said = row.reason or f"{row.value} (to {row.high}) {row.note}"
            print(f"{row.what}: {said}", flush=True)


if __name__ == "__main__":
    main()
