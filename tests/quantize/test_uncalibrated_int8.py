from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.hardware.runtimes import ort
from fettle.quantize import static_int8, uncalibrated_int8
from fettle.quantize.qdq_graph import int8_layers

NOISE = np.random.default_rng(3).standard_normal((8, 1, 8, 8)).astype(np.float32)


def kernels(model: Path) -> Counter[tuple[str, bool]]:
    profiler = ort.profile(model, threads=1)
    profiler.run(NOISE[:1])
    return Counter((kernel.kind, kernel.int8) for kernel in profiler.kernels())


@pytest.mark.parametrize("make", [tiny_onnx.classifier, tiny_onnx.pooled])
def test_it_runs_the_kernels_of_the_file_that_is_served(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    model, timed, served = make(tmp_path / "m.onnx"), tmp_path / "t.onnx", tmp_path / "s.onnx"
    uncalibrated_int8.apply(model, timed, noise=NOISE)
    static_int8.apply(model, served, batches=[tiny_onnx.images(32)])
    assert kernels(timed) == kernels(served)
    assert int8_layers(onnx.load(timed)) != []
    shapes = [
        sorted(tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer if tensor.dims)
        for path in (timed, served)
    ]
    weights = [[shape for shape in listed if len(shape) > 1] for listed in shapes]
    assert weights[0] == weights[1]


def test_biases_of_convolutions_are_float_as_in_the_file_that_is_served(tmp_path: Path) -> None:
    model, timed = tiny_onnx.classifier(tmp_path / "m.onnx"), tmp_path / "t.onnx"
    uncalibrated_int8.apply(model, timed, noise=NOISE)
    proto = onnx.load(timed)
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    biases = [types[n.input[2]] for n in proto.graph.node if n.op_type == "Conv"]
    assert biases
    assert set(biases) == {onnx.TensorProto.FLOAT}


def test_a_graph_that_branches_on_its_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be quantized to int8: it branches on its data"):
        uncalibrated_int8.apply(
            tiny_onnx.branching(tmp_path / "m.onnx"), tmp_path / "t.onnx", noise=NOISE
        )
