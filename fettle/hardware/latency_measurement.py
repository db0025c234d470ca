"""Latency measurement in interleaved rounds of shuffled order, so that drift hits all alike.

In each round every contender runs once untimed (the one before it has emptied the caches; a
server runs one model, so its steady state is what counts) and once timed. Times are float64
milliseconds [rounds]. Intervals are 95 %.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fettle.measure import Measure

Times = npt.NDArray[np.float64]
Clock = Callable[[], int]  # nanoseconds, never going back

RESAMPLES = 2000
# (rounds in multiples of the first look's, share of error this look may spend), see
# `measure_until_significant`. The last look gets most: what is clear at once is so at any level.
LOOKS = ((1, 0.01), (3, 0.015), (9, 0.025))
WARM_UP = 10  # ONNX Runtime's arena and OpenVINO's kernels settle within the first few calls


@runtime_checkable
class OwnClock(Protocol):
    """A contender that runs in another process and times itself there: calls do not count."""

    def __call__(self) -> object:
        """Run once."""

    def time_ms(self) -> float:
        """Run once untimed and once timed; return that one's time in milliseconds."""


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seed: int,
    warm_up: int = WARM_UP,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Times]:
    """Time each contender once a round, in a new random order each round: {name: ms [rounds]}.

    One that has a clock of its own (`OwnClock`) is asked for its time instead.
    """
    names = list(contenders)
    for name in names:
        for _ in range(warm_up):
            contenders[name]()
    rng = np.random.default_rng(seed)
    taken = {name: np.empty(rounds) for name in names}
    for round_index in range(rounds):
        for index in rng.permutation(len(names)):
            run = contenders[names[index]]
            if isinstance(run, OwnClock):
                taken[names[index]][round_index] = run.time_ms()
                continue
            run()
            started = clock()
            run()
            taken[names[index]][round_index] = (clock() - started) / 1e6
    return taken


def quantile(times: Times, share: float) -> Measure:
    """Return a quantile of the times with its distribution-free interval, in ms.

    The interval's ends are order statistics: the k-th smallest of n lies below the quantile with
    a binomial probability (David & Nagaraja 2003, "Order Statistics", 7.1). Rounds are taken as
    independent. Where n is too small for an end (p99 needs 368 rounds) there is none.
    """
    ordered = np.sort(times)
    value = float(np.quantile(ordered, share, method="inverted_cdf"))
    ranks = _ranks(len(ordered), share)
    if ranks is None:
        return Measure(value=value, unit="ms", n=len(ordered))
    low, high = float(ordered[ranks[0]]), float(ordered[ranks[1]])
    return Measure(value=value, unit="ms", n=len(ordered), low=low, high=high)


def throughput(times: Times, images: int) -> Measure:
    """Return images per second of a batch of `images`, from the median time of a batch."""
    p50 = quantile(times, 0.5)
    rates = [None if ms is None else images * 1000 / ms for ms in (p50.value, p50.high, p50.low)]
    return Measure(
        value=images * 1000 / p50.value, unit="images/s", n=p50.n, low=rates[1], high=rates[2]
    )


def speedup(slow: Times, fast: Times, *, seed: int) -> Measure:
    """Return median(slow) / median(fast) over the same rounds: above 1, `fast` is faster.

    The interval is a moving-block bootstrap of whole rounds (Künsch 1989): a round's times stay
    together, because what slows the machine slows both, and so do neighbouring rounds.
    """
    rows = _blocks(slow, fast, seed)
    value = float(np.median(slow) / np.median(fast))
    drawn = np.median(slow[rows], axis=1) / np.median(fast[rows], axis=1)
    return _ends(value, drawn, len(slow))


def paired_speedup(slow: Times, fast: Times, *, seed: int, error: float = 0.05) -> Measure:
    """Return the median over the rounds of slow / fast, with `speedup`'s interval of it.

    The interval misses the truth in a share `error` of cases, half of it on each side.

    Right where noise strikes both alike, and far narrower on a busy machine: there (14 processes
    on 2 cores, 200 rounds) a true 1.1x had an interval 0.15 wide instead of 0.83, and was not
    shown in 20 % of 40 trials instead of 52 %; a true 0.95x was never taken for a gain.
    """
    rows, ratios = _blocks(slow, fast, seed), slow / fast
    return _ends(float(np.median(ratios)), np.median(ratios[rows], axis=1), len(slow), error)


def measure_until_significant(
    first: Mapping[str, Times],
    more: Callable[[int], Mapping[str, Times]],
    *,
    slow: str,
    fast: str,
    seed: int,
) -> tuple[dict[str, Times], Measure]:
    """Take more rounds while the paired speed-up of `fast` over `slow` straddles 1, up to a bound.

    `first` are the times of the first rounds, `more(rounds)` times further ones. Returns all times
    and the speed-up. Looking again would raise the chance of an error, so the looks of LOOKS share
    5 % among them: by the union bound all their intervals hold at once in 95 % of cases, however
    the looks depend on one another and wherever they stop (Bonferroni; Dunn 1961, eq. 2.4).
    """
    times, rounds = dict(first), len(first[fast])
    for multiple, error in LOOKS:
        lacking = multiple * rounds - len(times[fast])
        if lacking:
            times = {name: np.concatenate([times[name], ms]) for name, ms in more(lacking).items()}
        gain = paired_speedup(times[slow], times[fast], seed=seed, error=error)
        if (gain.low or 0) > 1 or (gain.high or 0) < 1:
            break
    return times, gain


def _blocks(slow: Times, fast: Times, seed: int) -> npt.NDArray[np.int64]:
    """Draw RESAMPLES samples of the rounds, in blocks: indices [RESAMPLES, rounds]."""
    if len(slow) != len(fast):
        raise ValueError(f"a speed-up needs the same rounds, got {len(slow)} and {len(fast)}")
    n = len(slow)
    block = max(1, round(n ** (1 / 3)))  # the usual rate (Hall, Horowitz & Jing 1995)
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n - block + 1, size=(RESAMPLES, math.ceil(n / block)))
    return np.asarray((starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :n])


def _ends(value: float, drawn: Times, n: int, error: float = 0.05) -> Measure:
    low, high = (float(end) for end in np.quantile(drawn, [error / 2, 1 - error / 2]))
    return Measure(value=value, unit="x", n=n, low=min(low, value), high=max(high, value))


def _ranks(n: int, share: float) -> tuple[int, int] | None:
    """Return the 0-based ranks of a quantile's interval ends, None when n is too small.

    With B ~ Binomial(n, share), the k-th smallest (from 1) is above the quantile with probability
    P(B < k) and below it with P(B >= k): each end leaves at most 2.5 %.
    """
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(share)
        + (n - k) * math.log1p(-share)
        for k in range(n + 1)
    ]
    below = np.cumsum(np.exp(logs))  # below[k] = P(B <= k)
    low = int(np.searchsorted(below, 0.025, side="right"))  # the largest k with P(B < k) <= 2.5 %
    high = int(np.searchsorted(below, 0.975)) + 1  # the smallest k with P(B >= k) <= 2.5 %
    return (low - 1, high - 1) if low >= 1 and high <= n else None
