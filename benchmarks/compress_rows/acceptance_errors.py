"""The guards' own errors: true wins that "never slower" refuses, and true losses it lets pass.

Simulated from measured times: the float model's rounds are resampled in blocks, once as they are
and once divided by a known speed-up, and judged as stages/evaluate.py judges them, further looks
included. A win is 1.1x and more; a loss is 0.95x and less.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.context import Context, Prepared
from fettle.evaluation import acceptance_criteria, accuracy_statistics
from fettle.hardware import latency_measurement
from fettle.hardware.runtimes import ort

WHAT = "true wins refused by the latency guard, and true losses let pass, seeded"
GOAL = "<= 5 % of wins refused"

TRIALS = 200
WINS, LOSSES = (1.1, 1.2, 1.5), (0.95, 0.9)
REFUSED_MAX = 0.05
POOL_ROUNDS, BLOCK = 3000, 6


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Judge seeded artefacts on each data set's float model."""
    for name in context.data:
        one = context.prepare(name)
        pool, seeds = _pool(context, one), [context.seed]
        refused = sum(not _ships(pool, gain, t, context) for gain in WINS for t in range(TRIALS))
        passed = sum(_ships(pool, gain, t, context) for gain in LOSSES for t in range(TRIALS))
        wins = accuracy_statistics.proportion(refused, len(WINS) * TRIALS)
        losses = accuracy_statistics.proportion(passed, len(LOSSES) * TRIALS)
        yield benchmark_row.of_measure(
            f"{name}: true wins refused by the latency guard",
            wins,
            seeds=seeds,
            goal=f"<= {REFUSED_MAX:g}",
            holds=wins.value <= REFUSED_MAX,
            note=f"speed-ups of {', '.join(map(str, WINS))}, {context.rounds} rounds",
        )
        yield benchmark_row.of_measure(
            f"{name}: true losses let pass by the latency guard",
            losses,
            seeds=seeds,
            goal=f"<= {REFUSED_MAX:g}",
            holds=losses.value <= REFUSED_MAX,
            note=f"speed-ups of {', '.join(map(str, LOSSES))}",
        )


def _pool(context: Context, one: Prepared) -> np.ndarray:
    """Time the float model twice in the same rounds: ms [2, rounds]."""
    batch = one.batch(one.images("test", most=1))
    sessions = [ort.open(one.onnx, threads=context.threads) for _ in range(2)]
    times = latency_measurement.interleave(
        {str(index): lambda s=session: s.run(batch) for index, session in enumerate(sessions)},
        rounds=POOL_ROUNDS,
        seed=context.seed,
    )
    return np.stack([times["0"], times["1"]])


def _ships(pool: np.ndarray, gain: float, trial: int, context: Context) -> bool:
    """Draw one artefact's rounds and judge it, with further looks while it is in doubt."""
    rng = np.random.default_rng([context.seed, trial, round(1000 * gain)])

    def draw(rounds: int) -> dict[str, np.ndarray]:
        starts = rng.integers(0, pool.shape[1] - BLOCK, size=-(-rounds // BLOCK))
        rows = (starts[:, None] + np.arange(BLOCK)).ravel()[:rounds]
        return {"float": pool[0, rows], "ours": pool[1, rows] / gain}

    first = draw(context.rounds)
    _, speedup = latency_measurement.measure_until_significant(
        first, draw, slow="float", fast="ours", seed=trial
    )
    return acceptance_criteria.is_faster(
        1, acceptance_criteria.Baseline("the float model", 1, speedup)
    )[0]
