from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware.runtimes import ort
from fettle.quantize.quantizers import weight_fp16


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=64)
    found = weight_fp16.apply(model, tmp_path / "w16.onnx")
    assert (found.quantized, found.left) == ({"Conv": 2, "Gemm": 1}, {})
    return model, tmp_path / "w16.onnx"


def test_it_answers_as_the_float_model_within_float16_s_rounding(files: tuple[Path, Path]) -> None:
    images = tiny_onnx.images(60, seed=5)
    before, after = (ort.open(path, threads=1).run(images) for path in files)
    assert 0 < np.abs(after - before).max() < 2e-3 * np.abs(before).max()


def test_it_is_half_of_the_file(files: tuple[Path, Path]) -> None:
    before, after = (path.stat().st_size for path in files)
    assert 0.4 * before < after < 0.55 * before


def test_onnx_runtime_widens_the_weights_when_it_loads_the_file(files: tuple[Path, Path]) -> None:
    profiler = ort.profile(files[1], threads=1)
    for _ in range(3):
        profiler.run(tiny_onnx.images(1))
    assert "Cast" not in {kernel.kind for kernel in profiler.kernels()}


def test_a_weight_beyond_float16_stays_float32(tmp_path: Path) -> None:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=4)
    wide = np.array(tiny_onnx.weights(model)["w1"])
    wide[0, 0, 0, 0] = 7e4
    tiny_onnx.replace_weight(model, "w1", wide)
    found = weight_fp16.apply(model, tmp_path / "w16.onnx")
    assert (found.quantized, found.left) == ({"Conv": 1, "Gemm": 1}, {"Conv": 1})
    logits = ort.open(tmp_path / "w16.onnx", threads=1).run(tiny_onnx.images(6))
    assert np.isfinite(logits).all()


def test_the_same_model_gives_the_same_bytes(files: tuple[Path, Path]) -> None:
    again = files[1].with_name("again.onnx")
    weight_fp16.apply(files[0], again)
    assert again.read_bytes() == files[1].read_bytes()
    onnx.checker.check_model(onnx.load(again), full_check=True)


def test_a_graph_without_weights_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx.pooling(tmp_path / "pooling.onnx")
    with pytest.raises(ModelError) as caught:
        weight_fp16.apply(model, tmp_path / "out.onnx")
    assert str(caught.value) == (
        "pooling.onnx has no weights to store in float16: got no Conv, Gemm, MatMul with constant "
        "weights of at most 65,504; only their weights are worth it. Fix: drop the w16 targets "
        "(params.yaml: targets)."
    )
    assert not (tmp_path / "out.onnx").exists()
