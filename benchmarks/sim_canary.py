"""Measure how often a rollout decides wrongly: `make sim-canary`.

`--only PART …` measures some parts and keeps the other rows (see PARTS); `--rollouts N` how many a
cell: 10,000 in the NAMED worlds and 2,000 in the others unless told. Each row is written as soon as
it is known, so a run that is stopped goes on with `--only`. It measures no time: it may run on a
busy machine. Every error rate has the power beside it, in its note: what was promoted, what held.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from zlib import crc32

import numpy as np
from scipy.stats import beta

from benchmarks import benchmark_row, row_origin, table
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.canary import ours, rivals, worlds
from benchmarks.canary.ours import HELD, PROMOTED, ROLLED_BACK, Ints, Length, Outcomes
from benchmarks.canary.worlds import Array as Floats
from benchmarks.canary.worlds import Challenger
from fettle.params_schema import Promote, PromoteStep
from fettle.rollout.promotion import shadow_gate
from fettle.rollout.promotion.rollout_plan import RolloutPlan

HORIZON = 30_000  # user requests; the goal's power is asked at 25,000
WATCH_REQUESTS = 20_000  # after a promotion: two days of the daily cycle
POWER_REQUESTS = 25_000
WRONG_MAX, UPPER_MAX = 0.01, 0.013
NAMED, OTHERS = 10_000, 2000  # rollouts a cell
POWER_KINDS = ("plain", "bursts", "shared wandering latency", "daily cycle")
POWER_LEAST = 0.9
IMAGES = (300, 899, 2000, 10_000)  # held out for the shadow
CHUNK = 1000  # rollouts at once: their arrays fit the cache
CHUNK_STICKY = 250  # their users do not
EQUAL = Challenger()
AT_MARGIN = {
    "errors +1 point": Challenger(plus=0.01),
    "p95 x1.2": Challenger(slow=1.2),
}
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


LENGTH = Length(HORIZON)


def default_plan() -> RolloutPlan:
    """Return the plan of params.yaml as it ships."""
    return RolloutPlan.of(Promote())


def chunk(kind: str) -> int:
    """Return how many rollouts of a world are simulated at once."""
    return CHUNK_STICKY if worlds.KINDS[kind].sticky else CHUNK


def seeds(kind: str, challenger: Challenger, rollouts: int) -> list[int]:
    """List the seed of each chunk of so many rollouts."""
    starts = range(0, rollouts, chunk(kind))
    return [crc32(f"{kind} {challenger} {start}".encode()) for start in starts]


def simulate(
    kind: str,
    challenger: Challenger,
    plan: RolloutPlan,
    rollouts: int,
    *,
    length: Length = LENGTH,
) -> Outcomes:
    """Roll out so many times, in chunks, each with its own seed."""
    size = chunk(kind)
    found = []
    for at, seed in zip(range(0, rollouts, size), seeds(kind, challenger, rollouts), strict=True):
        world = worlds.make(kind, challenger, min(size, rollouts - at), seed)
        found.append(ours.roll(world, plan, length))
    names = [one.name for one in fields(Outcomes)]
    return Outcomes(*(np.concatenate([getattr(one, name) for one in found]) for name in names))


def upper(hits: int, n: int) -> float:
    """Return the exact 95 % upper bound of a share (Clopper and Pearson 1934, one-sided)."""
    return 1.0 if hits == n else float(beta.ppf(0.95, hits + 1, n - hits))


def wrong(what: str, ends: Ints, end: int, drawn: Sequence[int], *, note: str = "") -> BenchmarkRow:
    """Make the row of a share of wrong ends, with its exact bound; the note has the power."""
    hits, n = int((ends == end).sum()), len(ends)
    high = upper(hits, n)
    return benchmark_row.measured(
        what,
        hits / n,
        low=0.0,
        high=high,
        unit="share",
        n=n,
        seeds=drawn,
        goal=f"<= {WRONG_MAX:g}, 95 % bound <= {UPPER_MAX:g}",
        holds=hits / n <= WRONG_MAX and high <= UPPER_MAX,
        note=note,
    )


def ends_of(out: Outcomes, whose: str) -> str:
    """Say how all of them ended: held is not decided rightly."""
    in_time = float(((out.end == PROMOTED) & (out.requests <= POWER_REQUESTS)).mean())
    return (
        f"of {whose}: {in_time:.1%} promoted within 25,000 requests, {out.share(PROMOTED):.1%} "
        f"within {HORIZON:,}, {out.share(ROLLED_BACK):.1%} rolled back, {out.share(HELD):.1%} held"
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
        yield _median_to_p95(what, promoted, "requests", drawn)


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


def _median_to_p95(
    what: str, found: Ints | Floats, unit: str, drawn: Sequence[int]
) -> BenchmarkRow:
    half, p95 = (float(quantile) for quantile in np.quantile(found, [0.5, 0.95]))
    return benchmark_row.measured(
        f"{what}, median (high: p95)",
        half,
        low=float(found.min()),
        high=p95,
        unit=unit,
        n=found.size,
        seeds=drawn,
    )


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


def against(rollouts: int, per_minute: int) -> Iterator[BenchmarkRow]:
    """Judge the same worlds by other tools' rules, at a stated traffic."""
    kinds = list(worlds.KINDS) if per_minute <= 1000 else ["plain"]
    cases = {"equal": EQUAL, **AT_MARGIN, "3x errors": Challenger(times=3.0)}
    for kind in [kind for kind in kinds if not worlds.KINDS[kind].sticky]:
        for case, challenger in cases.items():
            prefix = f"{per_minute}/min, {kind}, {case}"
            end = ROLLED_BACK if case == "equal" else PROMOTED
            out = simulate(kind, challenger, default_plan(), rollouts)
            drawn, minutes = seeds(kind, challenger, rollouts), _minutes(out, per_minute)
            yield from _compared(f"{prefix}: fettle", end, out.end, minutes, drawn)
            for rule, run in rivals.RULES.items():
                for careful in (False, True) if rule != "Kayenta" else (False,):
                    seed = crc32(prefix.encode())
                    world = worlds.make(kind, challenger, rollouts, seed)
                    ends = run(world, per_minute, careful=careful)
                    name = f"{rule}{', careful bounds' if careful else ''}"
                    yield from _compared(f"{prefix}: {name}", end, ends.end, ends.minutes, [seed])


def _compared(
    what: str,
    end: int,
    ends: Ints,
    minutes: Floats,
    drawn: Sequence[int],
) -> Iterator[BenchmarkRow]:
    verb = "rolled back" if end == ROLLED_BACK else "promoted"
    hits, n = int((ends == end).sum()), len(ends)
    yield benchmark_row.measured(
        f"{what} {verb}",
        hits / n,
        low=0.0,
        high=upper(hits, n),
        unit="share",
        n=n,
        seeds=drawn,
    )
    right = minutes[(ends != end) & (ends != ours.HELD)]
    if right.size:
        yield _median_to_p95(f"{what}, minutes to the right decision", right, "min", drawn)


def _minutes(out: Outcomes, per_minute: int) -> Floats:
    """Return the minutes until the challenger had all traffic or none, least waits included."""
    requests = np.where(out.end == PROMOTED, out.whole, out.requests)
    least = (
        default_plan().step_min_s / 60 * np.where(out.end == PROMOTED, len(default_plan().steps), 0)
    )
    minutes: Floats = np.maximum(requests / per_minute, least)
    return minutes


def part(name: str, rollouts: int) -> Iterator[BenchmarkRow]:
    """Return the rows of one part."""
    others: dict[str, Callable[[], Iterator[BenchmarkRow]]] = {
        "beyond": lambda: beyond(rollouts),
        "rollback": lambda: rollback(rollouts),
        "shadow": lambda: shadow(rollouts),
        "watch": lambda: watch(rollouts),
        "rivals": lambda: against(max(50, rollouts // 20), 1000),
        "rivals at 6,000 a minute": lambda: against(max(20, rollouts // 100), 6000),
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
