from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware import onnx_cost
from fettle.hardware.runtimes import ort
from fettle.quantize.quantizers import dynamic_int8


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=64)
    found = dynamic_int8.apply(model, tmp_path / "int8.onnx")
    assert (found.quantized, found.left) == ({"MatMulInteger": 1}, {"Conv": 2})
    return model, tmp_path / "int8.onnx"


def test_it_answers_as_the_float_model_within_the_rounding(files: tuple[Path, Path]) -> None:
    images = tiny_onnx.images(60, seed=5)
    before, after = (ort.open(path, threads=1).run(images) for path in files)
    assert 0 < np.abs(after - before).max() < 0.02 * np.abs(before).max()


def test_the_linear_layer_runs_on_bytes_and_convolutions_still_fuse(
    files: tuple[Path, Path],
) -> None:
    profiler = ort.profile(files[1], threads=1)
    profiler.run(tiny_onnx.images(1))
    kernels = {kernel.kind: kernel.int8 for kernel in profiler.kernels()}
    assert kernels["DynamicQuantizeMatMul"]  # quantizes its input, multiplies, scales back
    assert not [kind for kind in kernels if kind.startswith("ConvInteger")]


def test_its_multiply_accumulates_are_counted_as_the_float_models(
    files: tuple[Path, Path],
) -> None:
    before, after = (onnx_cost.cost(path, shape=(1, 8, 8)).macs for path in files)
    assert before == after > 0


def test_the_same_model_gives_the_same_bytes(files: tuple[Path, Path]) -> None:
    again = files[1].with_name("again.onnx")
    dynamic_int8.apply(files[0], again)
    assert again.read_bytes() == files[1].read_bytes()
    onnx.checker.check_model(onnx.load(again), full_check=True)


def test_a_graph_without_linear_layers_is_refused(tmp_path: Path) -> None:
    model = tiny_onnx.pooling(tmp_path / "pooling.onnx")
    with pytest.raises(ModelError) as caught:
        dynamic_int8.apply(model, tmp_path / "out.onnx")
    assert str(caught.value) == (
        "pooling.onnx has no linear layer to compute in int8: got no Gemm or MatMul with constant "
        "weights; convolutions stay float: their integer form is slower. Fix: drop the "
        "dynamic_int8 targets (params.yaml: targets)."
    )
    assert not (tmp_path / "out.onnx").exists()
