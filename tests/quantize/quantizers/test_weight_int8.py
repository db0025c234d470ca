from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware.runtimes import openvino, ort
from fettle.quantize import weight_only
from fettle.quantize.quantizers import weight_int8


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=64)
    found = weight_int8.apply(model, tmp_path / "w8.onnx")
    assert (found.quantized, found.left) == ({"Conv": 2, "Gemm": 1}, {})
    return model, tmp_path / "w8.onnx"


def test_it_answers_as_the_float_model_within_the_weights_rounding(
    files: tuple[Path, Path],
) -> None:
    images = tiny_onnx.images(60, seed=5)
    before, after = (ort.open(path, threads=1).run(images) for path in files)
    assert 0 < np.abs(after - before).max() < 0.02 * np.abs(before).max()


def test_it_is_a_quarter_of_the_file(files: tuple[Path, Path]) -> None:
    before, after = (path.stat().st_size for path in files)
    assert after < 0.3 * before


@pytest.mark.skipif(not openvino.available().ok, reason="needs openvino")
def test_openvino_answers_the_same(files: tuple[Path, Path]) -> None:
    images = tiny_onnx.images(20, seed=5)
    ours, theirs = (tool.open(files[1], threads=1).run(images) for tool in (ort, openvino))
    # OpenVINO 2026.4 may round a linear layer's activations to 8 bits too, by itself
    assert np.abs(ours - theirs).max() < 2e-3 * np.abs(ours).max()


def test_onnx_runtime_widens_the_weights_when_it_loads_the_file(files: tuple[Path, Path]) -> None:
    """Widening them at every run costs ten times the network's own time."""
    profiler = ort.profile(files[1], threads=1)
    for _ in range(3):
        profiler.run(tiny_onnx.images(1))
    kinds = {kernel.kind for kernel in profiler.kernels()}
    assert "DequantizeLinear" not in kinds
    assert kinds & {"Conv", "FusedConv"}


def test_each_channel_is_rounded_by_its_own_step() -> None:
    weight = np.array([[1.0, -0.5], [0.0, 0.0], [1e-3, 2e-3]], np.float32)
    values, scales = weight_only.quantize(weight, 0)
    assert scales == pytest.approx([1 / 127, 1, 2e-3 / 127])
    assert values.tolist() == [[127, -64], [0, 0], [64, 127]]
    across, steps = weight_only.quantize(weight, 1)
    assert (across.shape, steps.shape) == ((3, 2), (2,))
    assert np.abs(across * steps - weight).max() <= steps.max() / 2 + 1e-9


def test_the_same_model_gives_the_same_bytes(files: tuple[Path, Path]) -> None:
    again = files[1].with_name("again.onnx")
    weight_int8.apply(files[0], again)
    assert again.read_bytes() == files[1].read_bytes()
    onnx.checker.check_model(onnx.load(again), full_check=True)


def test_a_graph_without_weights_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx.pooling(tmp_path / "pooling.onnx")
    with pytest.raises(ModelError) as caught:
        weight_int8.apply(model, tmp_path / "out.onnx")
    assert str(caught.value) == (
        "pooling.onnx has no weights to store in int8: got no Conv, Gemm, MatMul with constant "
        "weights; only their weights are worth it. Fix: drop the w8 targets (params.yaml: targets)."
    )
    assert not (tmp_path / "out.onnx").exists()
