from __future__ import annotations

import math
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from fettle.evaluation import accuracy_statistics
from fettle.params_schema import Metric

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def logits_of(answers: list[int] | Ints, classes: int, sure: float = 4.0) -> Floats:
    return np.eye(classes)[answers] * sure


def noisy(count: int, classes: int, noise: float, seed: int = 0) -> tuple[Floats, Ints]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return logits_of(labels, classes) + rng.normal(scale=noise, size=(count, classes)), labels


def pair(only_reference: int, only_candidate: int, n: int) -> tuple[Bools, Bools]:
    reference, candidate = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    candidate[:only_reference] = False
    reference[only_reference : only_reference + only_candidate] = False
    return reference, candidate


# Worked examples of Tango's interval for (b - c) / n: his own two papers' data, Bentur et al. 2009
# and Cavo et al. 2012 as computed by the R package contingencytables, Agresti & Min 2005.
@pytest.mark.parametrize(
    ("b", "c", "n", "z", "low", "high"),
    [
        (9, 3, 32, accuracy_statistics.Z, -0.027, 0.390),
        (0, 1, 44, 1.6448536, -0.096, 0.037),
        (1, 7, 21, accuracy_statistics.Z, -0.517, -0.026),
        (6, 16, 161, accuracy_statistics.Z, -0.1240, -0.0054),
        (16, 8, 86, accuracy_statistics.Z, -0.020, 0.207),
    ],
)
def test_the_paired_interval_gives_the_published_examples(
    b: int, c: int, n: int, z: float, low: float, high: float
) -> None:
    found = accuracy_statistics.tango_interval(b, c, n, z=z)
    assert found == pytest.approx((low, high), abs=6e-4)


def test_no_discordant_pair_is_no_certainty() -> None:
    found = accuracy_statistics.paired_drop(*pair(0, 0, 900))
    bound = accuracy_statistics.Z**2 / (900 + accuracy_statistics.Z**2)
    assert (found.value, found.n) == (0.0, 900)
    assert (found.low, found.high) == pytest.approx((-bound, bound))
    assert bound > 0.004


def exact_coverage(n: int, lost: float, gained: float) -> float:
    """Add up the multinomial probability of every outcome whose interval holds the true drop."""
    total = 0.0
    for b in range(n + 1):
        for c in range(n + 1 - b):
            logs = math.lgamma(n + 1) - math.lgamma(b + 1) - math.lgamma(c + 1)
            logs += b * math.log(lost) + c * math.log(gained) - math.lgamma(n - b - c + 1)
            chance = math.exp(logs + (n - b - c) * math.log1p(-lost - gained))
            if chance > 1e-7:
                low, high = accuracy_statistics.tango_interval(b, c, n)
                total += chance * (low - 1e-12 <= lost - gained <= high + 1e-12)
    return total


# (share that only the reference gets right, share that only the candidate does)
@pytest.mark.parametrize(
    ("lost", "gained"), [(0.01, 0.01), (0.02, 0.005), (0.03, 0.03), (0.08, 0.02), (0.15, 0.15)]
)
@pytest.mark.parametrize("n", [60, 180])
def test_the_paired_interval_covers_the_true_drop_about_19_times_in_20(
    n: int, lost: float, gained: float
) -> None:
    assert 0.94 <= exact_coverage(n, lost, gained) <= 0.998  # the rarest pairs: on the safe side


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400))
def test_the_paired_interval_mirrors_when_the_models_change_places(b: int, c: int, d: int) -> None:
    n = b + c + d + 1
    low, high = accuracy_statistics.tango_interval(b, c, n)
    other = accuracy_statistics.tango_interval(c, b, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert (low, high) == pytest.approx((-other[1], -other[0]), abs=1e-9)


# Newcombe 1998, Statistics in Medicine 17, pp. 857-872, table I, method 3
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_examples(
    successes: int, n: int, low: float, high: float
) -> None:
    found = accuracy_statistics.proportion(successes, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_the_metrics_are_those_that_params_may_name() -> None:
    logits, labels = noisy(50, 4, 2.0)
    assert (
        tuple(accuracy_statistics.summary(logits, labels))
        == accuracy_statistics.METRICS
        == get_args(Metric)
    )


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_f1_and_recall_are_scikit_learns(noise: float) -> None:
    logits, labels = noisy(300, 5, noise)
    answers = logits.argmax(axis=1)
    by_class = recall_score(labels, answers, average=None)
    assert accuracy_statistics.macro_f1(logits, labels).value == pytest.approx(
        f1_score(labels, answers, average="macro")
    )
    assert accuracy_statistics.recalls(logits, labels) == pytest.approx(by_class)
    assert accuracy_statistics.worst_recall(logits, labels).value == pytest.approx(by_class.min())
    assert accuracy_statistics.accuracy(logits, labels).value == pytest.approx(
        (answers == labels).mean()
    )


def test_a_class_without_images_has_no_recall_and_is_not_the_worst() -> None:
    logits, labels = logits_of([0, 0, 1, 0], 4), np.array([0, 0, 1, 1])
    assert np.isnan(accuracy_statistics.recalls(logits, labels)).tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert accuracy_statistics.worst_recall(logits, labels).value == 0.5
    assert list(accuracy_statistics.recall_measures(logits, labels, ["a", "b", "c", "d"])) == [
        "a",
        "b",
    ]


def test_worst_recall_counts_its_own_class_only() -> None:
    logits, labels = logits_of([0] * 7 + [1], 2), np.array([0] * 6 + [1, 1])
    found = accuracy_statistics.worst_recall(logits, labels)
    assert (found.value, found.n) == (0.5, 2)


def test_confusion_has_the_true_class_in_its_rows() -> None:
    table = accuracy_statistics.confusion(logits_of([0, 1, 1], 3), np.array([0, 0, 1]))
    assert table.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_a_flawless_macro_f1_has_no_interval() -> None:
    labels = np.arange(30) % 3
    found = accuracy_statistics.macro_f1(logits_of(labels, 3), labels)
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_macro_f1_of_many_classes_needs_no_table_of_classes_squared() -> None:
    logits, labels = noisy(400, 500, 1.5)  # 500 x 500 x 1000 resamples would be 2 GB
    found = accuracy_statistics.macro_f1(logits, labels)
    assert found.low is not None
    assert 0 < found.low < found.value


def test_calibration_error_of_an_overconfident_model_is_its_excess() -> None:
    logits = np.log(np.array([[0.9, 0.1]] * 10))
    labels = np.array([0] * 6 + [1] * 4)
    assert accuracy_statistics.calibration_error(logits, labels).value == pytest.approx(0.3)


def test_probabilities_are_taken_as_they_are() -> None:
    chances = np.array([[0.9, 0.1], [0.3, 0.7]])
    assert accuracy_statistics.probabilities(chances) == pytest.approx(chances)
    assert accuracy_statistics.probabilities(np.log(chances)) == pytest.approx(chances)


def test_churn_counts_flips_between_wrong_answers_too() -> None:
    found = accuracy_statistics.churn(logits_of([0, 1, 2, 2], 3), logits_of([0, 2, 1, 2], 3))
    assert (found.value, found.n) == (0.5, 4)


@pytest.mark.parametrize("metric", accuracy_statistics.METRICS)
def test_a_drop_is_positive_when_the_candidate_is_worse(metric: str) -> None:
    reference, labels = noisy(400, 4, 1.0)
    worse = reference + np.random.default_rng(1).normal(scale=4.0, size=reference.shape)
    found = accuracy_statistics.drop(metric, reference, worse, labels)
    assert found.value > 0.05
    assert found.low is None or found.low > 0
    mirrored = accuracy_statistics.drop(metric, worse, reference, labels)
    assert mirrored.value == pytest.approx(-found.value)


@pytest.mark.parametrize("metric", accuracy_statistics.METRICS)
def test_a_drop_is_the_difference_of_the_two_metrics(metric: str) -> None:
    reference, labels = noisy(200, 3, 2.0)
    candidate, _ = noisy(200, 3, 2.5)
    before = accuracy_statistics.summary(reference, labels)[metric].value
    after = accuracy_statistics.summary(candidate, labels)[metric].value
    sign = -1 if metric == "calibration_error" else 1
    found = accuracy_statistics.drop(metric, reference, candidate, labels)
    assert found.value == pytest.approx(sign * (before - after))


def test_equal_inputs_give_equal_intervals() -> None:
    logits, labels = noisy(200, 3, 2.0)
    assert accuracy_statistics.macro_f1(logits, labels) == accuracy_statistics.macro_f1(
        logits, labels
    )


def test_an_unknown_metric_is_named() -> None:
    logits, labels = noisy(20, 3, 2.0)
    with pytest.raises(ValueError, match="no metric 'f2', there are"):
        accuracy_statistics.drop("f2", logits, logits, labels)
