"""Cross-fitting: the folds' images are one test set, judged once each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sample_facts

from fettle.errors import DataError, OurFault
from fettle.evaluation import cross_fitting
from fettle.params_schema import Budget

ASKED = Budget(metric="accuracy", drop_max=0.02, confidence=0.95)


def verdict(folder: Path, rows: range, *, wrong: set[int], classes: list[str]) -> Path:
    """Write what the stage verdict leaves: the float model is always right, the small one is not
    on `wrong`.
    """
    folder.mkdir()
    sample_facts.write_verdict(folder, classes=classes)
    labels = [classes[at % 2] for at in rows]

    def sure(at: int, right: bool) -> list[float]:
        hit = at % 2 if right else 1 - at % 2
        return [1.0 if place == hit else 0.0 for place in range(len(classes))]

    columns = {
        "row": [f"r{at}" for at in rows],
        "label": labels,
        "float_probabilities": [sure(at, True) for at in rows],
        "probabilities": [sure(at, at not in wrong) for at in rows],
    }
    pq.write_table(pa.table(columns), folder / "predictions.parquet")
    return folder


def test_the_bound_of_all_folds_is_that_of_one_set_as_large(tmp_path: Path) -> None:
    two = ["a", "b"]
    first = cross_fitting.read(verdict(tmp_path / "1", range(600), wrong={3, 4}, classes=two))
    second = cross_fitting.read(verdict(tmp_path / "2", range(600, 1200), wrong={700}, classes=two))
    whole = cross_fitting.read(
        verdict(tmp_path / "all", range(1200), wrong={3, 4, 700}, classes=two)
    )
    assert cross_fitting.pool([first, second], ASKED) == cross_fitting.pool([whole], ASKED)
    assert cross_fitting.pool([whole], ASKED).drop.value == pytest.approx(3 / 1200)
    assert cross_fitting.pool([whole], ASKED).judgement.status == "met"


def test_a_probability_of_zero_is_no_infinity(tmp_path: Path) -> None:
    one = cross_fitting.read(verdict(tmp_path / "1", range(10), wrong=set(), classes=["a", "b"]))
    assert np.isfinite(one.before).all()
    assert np.isfinite(one.after).all()


def test_an_image_tested_twice_is_our_fault(tmp_path: Path) -> None:
    one = cross_fitting.read(verdict(tmp_path / "1", range(10), wrong=set(), classes=["a", "b"]))
    with pytest.raises(OurFault, match="two folds tested the same image"):
        cross_fitting.pool([one, one], ASKED)


def test_a_fold_without_a_class_names_it(tmp_path: Path) -> None:
    one = cross_fitting.read(verdict(tmp_path / "1", range(10), wrong=set(), classes=["a", "b"]))
    other = cross_fitting.read(
        verdict(tmp_path / "2", range(10, 20), wrong=set(), classes=["a", "b", "c"])
    )
    with pytest.raises(DataError, match="no training image of a class: got c;"):
        cross_fitting.pool([one, other], ASKED)
