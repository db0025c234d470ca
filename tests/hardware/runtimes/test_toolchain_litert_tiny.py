"""LiteRT in seconds: the committed int8 file answers what it answered when it was made."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from fettle.hardware.isolated import toolchain_environment
from fettle.hardware.runtimes import litert, ort

TINY = Path(__file__).resolve().parents[2] / "golden" / "tiny_int8.tflite"  # tools/tiny_tflite.py
IMAGES = 24


def answers() -> np.ndarray:  # type: ignore[type-arg]
    kept: np.ndarray = np.load(TINY.with_suffix(".npy"))  # type: ignore[type-arg]
    return kept


@pytest.mark.toolchain
def test_the_committed_file_answers_as_it_did_to_a_step_of_its_scale() -> None:
    toolchain_environment.install(litert.TOOLCHAIN, say=sys.stderr.write)
    session = litert.open(TINY, threads=1)
    assert session.input_shape == (None, 1, 8, 8)
    logits, kept = session.run(tiny_onnx.images(IMAGES, seed=1)), answers()
    step = np.diff(np.unique(kept)).min()
    assert np.abs(logits - kept).max() <= 1.01 * step
    assert (logits.argmax(axis=1) == kept.argmax(axis=1)).all()


def test_the_committed_answers_are_the_float_model_s(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "given.onnx")
    wanted = ort.open(model, threads=1).run(tiny_onnx.images(IMAGES, seed=1))
    assert (answers().argmax(axis=1) == wanted.argmax(axis=1)).all()
    assert answers() == pytest.approx(wanted, abs=0.05 * float(np.abs(wanted).max()))


def test_the_committed_file_is_whole_int8_and_small() -> None:
    data = TINY.read_bytes()
    assert data[4:8] == b"TFL3"
    assert len(data) < 10_000
    assert b"serving_default" in data
