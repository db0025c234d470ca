"""The budget's own errors: true wins that the test set cannot show, and true losses it lets pass.

Summed exactly over all outcomes of a test set of each data set's size
(fettle/evaluation/accuracy_budget.py), not simulated. A win is a model without any true loss whose
answers flip; a loss is one that truly loses just what the budget allows.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import benchmark_row
from benchmarks.benchmark_row import BenchmarkRow
from benchmarks.context import DATA, Context
from benchmarks.toolbox import ROOT
from fettle.evaluation import accuracy_budget
from fettle.params import load

WHAT = "true wins refused by the budget, and true losses let pass, at each set's size"
GOAL = "<= 5 % of true wins refused"

TESTED = {"digits": 899, "photos": 824, "fashion": 10_000}  # images, as splits and quarantine leave
FLIPS = (0.01, 0.02)  # shares of answers, as compressed models show on digits
REFUSED_MAX = 0.05
PASSED_MAX = 0.065  # of a nominal 0.05: what the bound's coverage test allows


def run(context: Context) -> Iterator[BenchmarkRow]:
    """Sum what each set's test images would decide."""
    for name in context.data:
        asked, n = load(ROOT / DATA[name][0]).compress.budget, TESTED[name]
        bound = {"drop_max": asked.drop_share, "confidence": asked.confidence}
        refused = [1 - accuracy_budget.power_at(f / 2, f / 2, n, **bound) for f in FLIPS]
        passed = [
            accuracy_budget.power_at(
                (f + asked.drop_share) / 2, (f - asked.drop_share) / 2, n, **bound
            )
            for f in (asked.drop_share, asked.drop_share + 0.02)
        ]
        note = f"budget {asked.drop_share:g} at {asked.confidence:g}; exact, no draw"
        for what, found, goal in (
            ("true wins refused by the budget", refused, REFUSED_MAX),
            ("true losses let pass by the budget", passed, PASSED_MAX),
        ):
            yield benchmark_row.measured(
                f"{name}: {what}",
                max(found),
                low=min(found),
                high=max(found),
                unit="1",
                n=n,
                seeds=(),
                goal=f"<= {goal:.2g}",
                holds=max(found) <= goal,
                note=note,
            )
