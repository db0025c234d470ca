"""Cross-fitting: pooled folds, every image judged once by models it did not teach.

A recipe that is fixed beforehand is applied anew in each fold, to a float model of that fold. The
drop is then that of the procedure, over as many images as the data has; a single split shows at
most its test set. The folds' models are treated as one, as cross-validation does: the paired bound
(fettle/evaluation/accuracy_budget.py) does not count how much models of other folds would differ. A
recipe that was searched for on the same data has seen these images: its bound would be too good, so
`fettle crossfit` refuses `recipe: auto`.

Chernozhukov et al. (2018), Double/debiased machine learning, the Econometrics Journal 21 (cross-
fitting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from fettle.errors import DataError, OurFault
from fettle.evaluation import accuracy_budget, accuracy_statistics
from fettle.evaluation.accuracy_budget import BudgetJudgement
from fettle.evaluation.accuracy_statistics import Floats, Labels
from fettle.facts.verdict_facts import VERDICT, VerdictDocument
from fettle.measure import Measure
from fettle.params_schema import Budget

FLOOR = 1e-30  # a probability of 0 has no logarithm


@dataclass(frozen=True, slots=True)
class FoldAnswers:
    """Fold answers of both models on images [n]: log-probabilities [n, classes], as good as
    logits.
    """

    classes: list[str]
    rows: list[str]
    labels: Labels
    before: Floats
    after: Floats


@dataclass(frozen=True, slots=True)
class PooledFolds:
    """Accuracy of both, the drop of the budget's metric, and how the budget stands."""

    float_accuracy: Measure
    accuracy: Measure
    drop: Measure
    judgement: BudgetJudgement


def read(verdict: Path) -> FoldAnswers:
    """Read what the stage verdict left in its folder: verdict.json and predictions.parquet."""
    classes = list(VerdictDocument.read(verdict / VERDICT).classes)
    table = pq.read_table(verdict / "predictions.parquet")
    labels = [classes.index(name) for name in table["label"].to_pylist()]
    return FoldAnswers(
        classes,
        table["row"].to_pylist(),
        np.array(labels, dtype=np.int64),
        _logs(table["float_probabilities"].to_pylist()),
        _logs(table["probabilities"].to_pylist()),
    )


def pool(folds: Sequence[FoldAnswers], asked: Budget) -> PooledFolds:
    """Judge all folds' images as one test set.

    Raises DataError when a fold knows other classes, OurFault when a row was tested twice.
    """
    for fold in folds:
        if fold.classes != folds[0].classes:
            raise DataError(
                "a fold has no training image of a class",
                got=", ".join(sorted(set(fold.classes) ^ set(folds[0].classes))),
                rule="every fold trains on all classes",
                fix="ask for fewer folds, or add images of that class",
            )
    rows = [row for fold in folds for row in fold.rows]
    if len(set(rows)) != len(rows):
        raise OurFault("two folds tested the same image")
    labels = np.concatenate([fold.labels for fold in folds])
    before = np.concatenate([fold.before for fold in folds])
    after = np.concatenate([fold.after for fold in folds])
    return PooledFolds(
        accuracy_statistics.accuracy(before, labels),
        accuracy_statistics.accuracy(after, labels),
        accuracy_statistics.drop(asked.metric, before, after, labels),
        accuracy_budget.judge(
            asked.metric,
            before,
            after,
            labels,
            drop_max=asked.drop_share,
            confidence=asked.confidence,
        ),
    )


def _logs(probabilities: Sequence[Sequence[float]]) -> Floats:
    shares = np.asarray(probabilities, dtype=np.float32)
    return np.log(np.maximum(shares, np.float32(FLOOR)))
