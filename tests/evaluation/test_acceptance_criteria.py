from __future__ import annotations

import pytest

from fettle.evaluation import acceptance_criteria
from fettle.facts.answer_parity import AnswerParity
from fettle.measure import Measure


def speedup(value: float, low: float | None, high: float | None) -> Measure:
    return Measure(value=value, unit="x", n=200, low=low, high=high)


def plain(
    value: float, low: float | None, high: float | None, size_bytes: int = 1000
) -> acceptance_criteria.Baseline:
    return acceptance_criteria.Baseline(
        "the plain fp32 form", size_bytes, speedup(value, low, high)
    )


@pytest.mark.parametrize(
    ("size_bytes", "rival", "ships", "why"),
    [
        (400, plain(1.5, 1.4, 1.6), True, "faster and smaller"),
        (1100, plain(1.5, 1.4, 1.6), True, "faster"),
        (940, plain(0.7, 0.6, 0.8), True, "smaller"),
        (1000, plain(1.0, 0.98, 1.02), False, "neither faster nor 5% smaller"),
        (1000, plain(1.1, 0.99, 1.2), False, "neither faster nor 5% smaller"),
        (951, plain(1.0, 0.98, 1.02), False, "neither faster nor 5% smaller"),
        (950, plain(1.0, 0.98, 1.02), True, "smaller"),
        (1000, plain(1.5, None, None), False, "neither faster nor 5% smaller"),
    ],
)
def test_a_file_pays_when_it_is_faster_beyond_doubt_or_smaller(
    size_bytes: int, rival: acceptance_criteria.Baseline, ships: bool, why: str
) -> None:
    found, reason = acceptance_criteria.pays(size_bytes, rival)
    assert found is ships
    assert reason.startswith(f"{why}: ")


def test_a_refusal_has_its_numbers() -> None:
    assert acceptance_criteria.pays(1_200, plain(0.9, 0.85, 0.95)) == (
        False,
        "neither faster nor 5% smaller: 0.90x (0.85 to 0.95) the speed of the plain fp32 form, "
        "1,200 bytes against its 1,000",
    )


@pytest.mark.parametrize(
    ("low", "high", "ships"),
    [(1.4, 1.6, True), (1.001, 1.2, True), (1.0, 1.2, False), (0.9, 0.95, False)],
)
def test_nothing_ships_that_is_not_shown_to_be_faster_than_the_best_float_model(
    low: float, high: float, ships: bool
) -> None:
    best = acceptance_criteria.Baseline(
        "the float model in ort", 1000, speedup((low + high) / 2, low, high)
    )
    assert acceptance_criteria.is_faster(10, best)[0] is ships  # however small it is


def test_a_speed_up_without_an_interval_shows_nothing() -> None:
    best = acceptance_criteria.Baseline("the float model in ort", 1000, speedup(3.0, None, None))
    assert acceptance_criteria.is_faster(10, best)[0] is False


def test_a_slower_file_is_refused_with_its_numbers() -> None:
    best = acceptance_criteria.Baseline(
        "the float model in openvino", 1_000, speedup(0.9, 0.85, 0.95)
    )
    assert acceptance_criteria.is_faster(500, best) == (
        False,
        "not shown to be faster: 0.90x (0.85 to 0.95) the speed of the float model in openvino, "
        "500 bytes against its 1,000",
    )


def test_broken_answers_are_refused_with_their_parity() -> None:
    parity = AnswerParity(top1=0.49, cosine=0.9493, max_abs=12.3)
    assert acceptance_criteria.parity_failure("int8", parity) == (
        "it answers otherwise than the compressed model: same winner on 49.0% of the parity "
        "images, at least 80% is wanted of int8 (cosine 0.9493, largest difference 12.3)"
    )


def test_int8_may_differ_more_than_fp32() -> None:
    parity = AnswerParity(top1=0.95, cosine=0.999, max_abs=0.3)
    assert acceptance_criteria.parity_failure("int8", parity) is None
    assert acceptance_criteria.parity_failure("fp32", parity) is not None
