from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_onnx

from fettle.errors import OurFault
from fettle.hardware import peak_memory
from fettle.measure import Measure

SHAPE = (1, 1, tiny_onnx.SIZE_PX, tiny_onnx.SIZE_PX)


def peak(entry: Path) -> Measure:
    return peak_memory.peak(
        runtime="fettle.hardware.runtimes.ort", entry=entry, threads=1, shape=SHAPE
    )


def test_a_larger_model_takes_more_by_about_its_weights(tmp_path: Path) -> None:
    small = tiny_onnx.classifier(tmp_path / "small.onnx", width=4)
    large = tiny_onnx.classifier(tmp_path / "large.onnx", width=16384)  # 12 MB of Gemm weights
    added = peak(large).value - peak(small).value
    weights_bytes = large.stat().st_size
    assert weights_bytes < added < 12 * weights_bytes  # parsed, repacked, and wide activations


def test_this_processes_own_memory_does_not_count(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "small.onnx")
    ballast = np.ones(60_000_000, dtype=np.float32)  # 240 MB that a forked child would inherit
    found = peak(model)
    assert ballast[-1] == 1
    assert found.unit == "bytes"
    assert 0 < found.value < 100e6


def test_a_child_that_dies_is_reported(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "model.onnx")
    with pytest.raises(OurFault) as caught:
        peak_memory.peak(
            runtime="fettle.hardware.runtimes.ort", entry=model, threads=1, shape=(1, 1, 5, 5)
        )
    text = str(caught.value)
    assert text.startswith("the memory of model.onnx could not be measured: got ")
    assert "the batch does not fit the model: got float32 [1, 1, 5, 5]" in text
