from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fettle.hardware import latency_measurement
from fettle.measure import Measure


class Machine:
    """A machine whose clock only its work moves; it may grow slower as it works."""

    def __init__(self, slower_per_second: float = 0.0, jitter: float = 0.0) -> None:
        self.now_ns = 0
        self.order: list[str] = []
        self._drift, self._jitter = slower_per_second, jitter
        self._rng = np.random.default_rng(7)

    def clock(self) -> int:
        return self.now_ns

    def model(self, name: str, ms: float) -> Callable[[], object]:
        def run() -> None:
            self.order.append(name)
            slow = 1 + self._drift * self.now_ns / 1e9
            noise = 1 + self._jitter * self._rng.gamma(1.0)
            self.now_ns += round(ms * 1e6 * slow * noise)

        return run


def timed(
    machine: Machine, rounds: int, *, seed: int = 0, **ms: float
) -> dict[str, latency_measurement.Times]:
    models = {name: machine.model(name, one) for name, one in ms.items()}
    return latency_measurement.interleave(
        models, rounds=rounds, seed=seed, warm_up=3, clock=machine.clock
    )


def test_every_round_runs_each_model_in_an_order_of_its_own() -> None:
    machine = Machine()
    timed(machine, 50, a=1.0, b=1.0, c=1.0)
    assert machine.order[:9] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3  # the warm-up
    calls = machine.order[9:]
    rounds = [tuple(calls[at : at + 6 : 2]) for at in range(0, len(calls), 6)]
    assert calls[::2] == calls[1::2]  # once untimed, once timed
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) == 6


def test_the_order_comes_from_the_seed() -> None:
    machines = [Machine(), Machine(), Machine()]
    for machine, seed in zip(machines, (1, 1, 2), strict=True):
        timed(machine, 20, seed=seed, a=1.0, b=1.0)
    assert machines[0].order == machines[1].order != machines[2].order


def test_the_untimed_call_is_not_counted() -> None:
    machine = Machine()
    cold = iter([5.0, 1.0] * 100)

    def run() -> None:
        machine.now_ns += round(next(cold) * 1e6)

    taken = latency_measurement.interleave(
        {"a": run}, rounds=20, seed=0, warm_up=0, clock=machine.clock
    )
    assert taken["a"].tolist() == [1.0] * 20


def test_a_machine_that_slows_down_does_not_bias_the_speedup() -> None:
    machine = Machine(slower_per_second=2.0, jitter=0.05)  # three times slower at the end
    taken = timed(machine, 300, slow=1.5, fast=1.0)
    assert taken["fast"][-20:].mean() > 2 * taken["fast"][:20].mean()
    found = latency_measurement.speedup(taken["slow"], taken["fast"], seed=0)
    assert found.value == pytest.approx(1.5, rel=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1.5 < found.high < 1.65


def test_a_faster_model_is_faster_beyond_doubt() -> None:
    taken = timed(Machine(jitter=0.3), 100, slow=1.3, fast=1.0)
    found = latency_measurement.speedup(taken["slow"], taken["fast"], seed=0)
    assert found.low is not None
    assert found.low > 1
    assert (found.unit, found.n) == ("x", 100)


def drifting(rng: np.random.Generator, rounds: int) -> npt.NDArray[np.float64]:
    """What a shared machine does to its rounds: slow swings that neighbours share."""
    steps = rng.normal(scale=0.05, size=rounds)
    level = np.zeros(rounds)
    for at in range(1, rounds):
        level[at] = 0.7 * level[at - 1] + steps[at]
    return np.asarray(np.exp(level))


def test_the_speedups_interval_covers_the_truth_under_shared_drift() -> None:
    rng = np.random.default_rng(3)
    trials, held = 120, 0
    for _ in range(trials):
        shared = drifting(rng, 120)
        slow = 1.2 * shared * np.exp(rng.gamma(1.0, 0.05, 120))
        fast = shared * np.exp(rng.gamma(1.0, 0.05, 120))
        found = latency_measurement.speedup(slow, fast, seed=0)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.2 <= found.high
    assert held / trials > 0.9


def test_the_paired_speedup_is_narrower_and_covers_the_truth_where_noise_is_shared() -> None:
    rng = np.random.default_rng(4)
    trials, held, narrower = 120, 0, 0
    for _ in range(trials):
        shared = drifting(rng, 120) * np.where(rng.random(120) < 0.3, 5.0, 1.0)  # bursts
        slow = 1.2 * shared * np.exp(rng.gamma(1.0, 0.05, 120))
        fast = shared * np.exp(rng.gamma(1.0, 0.05, 120))
        paired = latency_measurement.paired_speedup(slow, fast, seed=0)
        plain = latency_measurement.speedup(slow, fast, seed=0)
        held += (paired.low or 0) <= 1.2 <= (paired.high or 0)
        narrower += (paired.high or 0) - (paired.low or 0) < (plain.high or 0) - (plain.low or 0)
    assert held / trials > 0.9
    assert narrower / trials > 0.9


def binomial_below(n: int, share: float, k: int) -> float:
    return sum(math.comb(n, at) * share**at * (1 - share) ** (n - at) for at in range(k))


@pytest.mark.parametrize(
    ("n", "share"), [(20, 0.5), (60, 0.5), (200, 0.5), (200, 0.95), (400, 0.99)]
)
def test_a_quantiles_interval_misses_at_most_one_time_in_forty_on_each_side(
    n: int, share: float
) -> None:
    found = latency_measurement.quantile(np.arange(1.0, n + 1), share)  # the k-th smallest is k
    assert found.low is not None
    assert found.high is not None
    low, high = int(found.low), int(found.high)
    assert binomial_below(n, share, low) <= 0.025 < binomial_below(n, share, low + 1)
    assert 1 - binomial_below(n, share, high) <= 0.025 < 1 - binomial_below(n, share, high - 1)


def test_p99_of_200_rounds_has_no_interval() -> None:
    found = latency_measurement.quantile(np.arange(1.0, 201.0), 0.99)
    assert (found.value, found.low, found.high, found.n) == (198.0, None, None, 200)


def test_throughput_turns_the_batchs_time_round() -> None:
    found = latency_measurement.throughput(np.full(40, 8.0), images=16)
    assert (found.value, found.low, found.high) == (2000.0, 2000.0, 2000.0)
    assert found.unit == "images/s"
    spread = latency_measurement.throughput(np.linspace(4, 12, 41), images=16)
    assert spread.low is not None
    assert spread.high is not None
    assert spread.low < spread.value < spread.high


def test_a_speedup_of_different_rounds_is_refused() -> None:
    with pytest.raises(ValueError, match="needs the same rounds, got 3 and 4"):
        latency_measurement.speedup(np.ones(3), np.ones(4), seed=0)
    with pytest.raises(ValueError, match="needs the same rounds, got 3 and 4"):
        latency_measurement.paired_speedup(np.ones(3), np.ones(4), seed=0)


def looked(gain: float, trial: int) -> tuple[int, Measure]:
    """Judge one seeded artefact on a noisy machine, 40 rounds a first look: rounds, speed-up."""
    rng = np.random.default_rng([trial, round(1000 * gain)])

    def draw(rounds: int) -> dict[str, latency_measurement.Times]:
        shared = drifting(rng, rounds)
        noise = np.exp(rng.gamma(1.0, 0.3, (2, rounds)))
        return {"float": gain * shared * noise[0], "ours": shared * noise[1]}

    times, found = latency_measurement.measure_until_significant(
        draw(40), draw, slow="float", fast="ours", seed=trial
    )
    return len(times["ours"]), found


def test_further_looks_show_a_small_gain_and_pass_few_files_that_are_as_fast() -> None:
    trials = 60
    gains = [looked(1.1, trial) for trial in range(trials)]
    assert sum((found.low or 0) > 1 for _, found in gains) / trials > 0.9
    assert {rounds for rounds, _ in gains} <= {40, 120, 360}
    assert len({rounds for rounds, _ in gains}) > 1
    ties = [looked(1.0, trial)[1] for trial in range(trials)]
    assert sum((found.low or 0) > 1 for found in ties) / trials <= 0.05


def test_what_is_clear_at_once_is_looked_at_once() -> None:
    assert [looked(gain, 0)[0] for gain in (0.4, 2.5)] == [40, 40]


def test_the_looks_spend_five_percent_of_error_between_them() -> None:
    assert sum(error for _, error in latency_measurement.LOOKS) == pytest.approx(0.05)
    assert [multiple for multiple, _ in latency_measurement.LOOKS] == [1, 3, 9]
