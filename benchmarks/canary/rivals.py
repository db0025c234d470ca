"""Judge the same worlds by the published rules of Flagger, Argo Rollouts and Kayenta.

Written from their documents, not from their code. What is read at one look is a window's figure,
as their providers give it; the worlds draw request by request, as for ours.

Flagger (README, "canary analysis"): every minute the weight grows by 5 up to 50 %, then all; a look
fails where the success rate of the last minute is under 99 % or the p99 above its bound (500 ms);
10 failed looks in all roll back; a failed look does not move the weight.

Argo Rollouts (docs/features/analysis.md, background analysis): weights 20, 40, 60, 80 % for ten
minutes each, then all; from 40 % on, every five minutes, the success rate of the window must be
95 % or more; more than 3 failures abort. With a latency metric beside it, as its users write one:
the window's p95 within 500 ms (careful: half-way to the margin), or the look has failed.

Kayenta (NetflixACAJudge; Spinnaker's best practices): three runs of an hour, a point a minute and
metric, the challenger at 10 % against a fresh baseline of 10 %; error rate and p95, direction
increase. A metric is High where the 98 % interval of the Hodges-Lehmann shift (Mann-Whitney) lies
above a quarter of its estimate and the ratio of means is 1 or more; every metric must pass.

Flagger's 99 % is the plain world's own success rate, so that it fails by chance there; `careful` is
off that threshold. It sets the absolute bounds of the first two where a careful user would who
knows the champion's figures: half-way between equal and the margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.canary.worlds import Array, Mask, World

PROMOTED, ROLLED_BACK = 1, 2
Ints = npt.NDArray[np.int64]
# The plain world's own figures: p99 = 20 ms · exp(0.5 · 2.326) = 64 ms, 1 % errors.
CHAMPION_P99_MS = 64.0
CHAMPION_P95_MS = 45.5  # 20 ms · exp(0.5 · 1.645)


@dataclass
class Ends:
    """How each rollout ended, [rows], and after how many minutes all traffic or none was moved."""

    end: Ints
    minutes: Array


@dataclass
class Window:
    """What both arms showed in one window, [rows, arms (champion, challenger)]."""

    n: Array
    failed: Array
    log_ms: Array  # [rows, requests]
    challenger: Mask  # [rows, requests]

    def success(self) -> Array:
        """Return the challenger's success rate; nan without requests."""
        with np.errstate(invalid="ignore"):
            out: Array = 1 - self.failed[:, 1] / self.n[:, 1]
        return out

    def quantile_ms(self, q: float, arm: int) -> Array:
        """Return an arm's latency quantile; nan without requests."""
        mine = self.challenger == bool(arm)
        ordered = np.sort(np.where(mine, self.log_ms, np.inf), axis=1)
        count = mine.sum(axis=1)
        at = np.clip(np.ceil(q * count).astype(int) - 1, 0, None)
        out: Array = np.exp(ordered[np.arange(len(at)), at])
        return np.where(count > 0, out, np.nan)


def look(world: World, clock: list[int], weight: Array, requests: int) -> Window:
    """Draw one window of so many requests a row."""
    rows = world.rows
    n, bad = np.zeros((rows, 2)), np.zeros((rows, 2))
    every = np.arange(rows)
    times, arms = np.zeros((rows, requests)), np.zeros((rows, requests), bool)
    for at in range(requests):
        challenger, _ = world.assign(weight)
        seen = world.draw(clock[0], challenger)
        clock[0] += 1
        arm = challenger.astype(int)
        n[every, arm] += 1
        bad[every, arm] += seen.failed
        times[:, at], arms[:, at] = seen.log_ms, challenger
    return Window(n, bad, times, arms)


def flagger(world: World, per_minute: int, *, careful: bool) -> Ends:
    """Roll out by Flagger's rule."""
    floor, p99_ms = (0.985, 1.1 * CHAMPION_P99_MS) if careful else (0.99, 500.0)
    rows, clock = world.rows, [0]
    weight, failures = np.full(rows, 0.05), np.zeros(rows, int)
    ends = Ends(np.zeros(rows, np.int64), np.zeros(rows))
    for minute in range(1, 21):
        window = look(world, clock, weight, per_minute)
        good = (window.success() >= floor) & (window.quantile_ms(0.99, 1) <= p99_ms)
        live = ends.end == 0
        failures += live & ~good
        back = live & (failures >= 10)
        done = live & good & (weight >= 0.5 - 1e-9)
        ends.end[back], ends.end[done] = ROLLED_BACK, PROMOTED
        ends.minutes[back | done] = minute
        weight = np.where(good & (weight < 0.5 - 1e-9), weight + 0.05, weight)
        if (ends.end > 0).all():
            break
    return ends


def argo(world: World, per_minute: int, *, careful: bool) -> Ends:
    """Roll out by Argo's documented background analysis."""
    floor, p95_ms = (0.985, 1.1 * CHAMPION_P95_MS) if careful else (0.95, 500.0)
    rows, clock = world.rows, [0]
    failures = np.zeros(rows, int)
    ends = Ends(np.zeros(rows, np.int64), np.zeros(rows))
    for half in range(8):
        weight = np.full(rows, 0.2 * (1 + half // 2))
        window = look(world, clock, weight, 5 * per_minute)
        if half < 2:
            continue
        live = ends.end == 0
        good = (window.success() >= floor) & (window.quantile_ms(0.95, 1) <= p95_ms)
        failures += live & ~good
        back = live & (failures > 3)
        ends.end[back], ends.minutes[back] = ROLLED_BACK, 5.0 * (half + 1)
    live = ends.end == 0
    ends.end[live], ends.minutes[live] = PROMOTED, 40.0
    return ends


def kayenta(world: World, per_minute: int, *, careful: bool) -> Ends:
    """Roll out by Kayenta's judge; it compares, so `careful` has no bound to set."""
    del careful
    rows, clock = world.rows, [0]
    ends = Ends(np.zeros(rows, np.int64), np.zeros(rows))
    for run in range(3):
        points = np.full((60, 2, 2, rows), np.nan)  # minute, metric, arm, row
        for minute in range(60):
            window = look(world, clock, np.full(rows, 0.1), per_minute)
            points[minute, 0] = (window.failed / np.maximum(window.n, 1)).T
            points[minute, 1] = [window.quantile_ms(0.95, arm) for arm in (0, 1)]
        high = np.zeros(rows, bool)
        for metric in range(2):
            high |= _is_high(points[:, metric, 0].T, points[:, metric, 1].T)
        live = ends.end == 0
        ends.end[live & high], ends.minutes[live & high] = ROLLED_BACK, 60.0 * (run + 1)
    live = ends.end == 0
    ends.end[live], ends.minutes[live] = PROMOTED, 180.0
    return ends


def _is_high(baseline: Array, challenger: Array) -> Mask:
    """Apply the classifier to [rows, points] of each arm."""
    n = baseline.shape[1]
    shifts = np.sort((challenger[:, :, None] - baseline[:, None, :]).reshape(len(baseline), -1))
    z = 2.326  # of a 98 % two-sided interval
    rank = int(n * n / 2 - z * np.sqrt(n * n * (2 * n + 1) / 12))
    low, estimate = shifts[:, rank], np.median(shifts, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = challenger.mean(axis=1) / baseline.mean(axis=1)
    out: Mask = (low > 0.25 * np.abs(estimate)) & (ratio >= 1.0)
    return out


RULES: dict[str, Callable[..., Ends]] = {
    "Flagger": flagger,
    "Argo Rollouts": argo,
    "Kayenta": kayenta,
}
