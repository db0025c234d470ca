from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
import tiny_onnx
from onnxruntime.quantization import calibrate as c

from fettle.quantize import activation_ranges
from fettle.quantize.activation_ranges import Calibrate
from fettle.quantize.ort_quantizer import quiet

METHODS: tuple[Calibrate, ...] = get_args(Calibrate)
THEIRS = {
    "minmax": c.CalibrationMethod.MinMax,
    "entropy": c.CalibrationMethod.Entropy,
    "percentile": c.CalibrationMethod.Percentile,
}
BATCHES = [tiny_onnx.images(60)[at : at + 20] for at in (0, 20, 40)]


class Feed(c.CalibrationDataReader):
    """One batch, by ONNX Runtime's own protocol."""

    def __init__(self, name: str, batch: np.ndarray) -> None:
        self._left = [{name: batch}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


def theirs(model: Path, method: Calibrate, folder: Path) -> dict[str, tuple[float, ...]]:
    """Find the ranges with ONNX Runtime's own calibrator, batch by batch."""
    calibrator = c.create_calibrator(
        model,
        None,
        folder / "augmented.onnx",
        THEIRS[method],
        extra_options={"symmetric": False, "percentile": activation_ranges.PERCENTILE},
    )
    source = onnx.load(model).graph.input[0].name
    for batch in BATCHES:
        calibrator.collect_data(Feed(source, batch))
    return as_floats(calibrator.compute_data())


def as_floats(ranges: c.TensorsData) -> dict[str, tuple[float, ...]]:
    return {name: tuple(np.ravel(one.range_value).tolist()) for name, one in ranges.items()}


@pytest.mark.parametrize("method", METHODS)
def test_one_shared_run_finds_onnx_runtimes_own_ranges(tmp_path: Path, method: Calibrate) -> None:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=8)
    with quiet():
        written = activation_ranges.collect(
            onnx.load(model), tmp_path, batches=BATCHES, methods=list(METHODS)
        )
        wanted = theirs(model, method, tmp_path)
    found = as_floats(c.load_tensors_data(written[method]))
    assert len(wanted) > 3
    clip = next(node for node in onnx.load(model).graph.node if node.op_type == "Clip")
    # but for float32's rounding: theirs does not optimise the graph
    for name in wanted:
        # the quantizer itself gives what is clipped the range behind the clip
        ends = wanted[clip.output[0] if name == clip.input[0] else name]
        assert found[name] == pytest.approx(ends, rel=2e-6, abs=1e-6)


def test_a_tensor_that_another_reads_too_is_looked_at_beside_its_relu() -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Neg", ["x"], ["a"]), make("Relu", ["a"], ["b"]),
        make("Abs", ["b"], ["c"]), make("Relu", ["c"], ["d"]),
        make("Add", ["c", "d"], ["e"]), make("Relu", ["e"], ["f"]), make("Clip", ["f"], ["y"]),
    ]  # fmt: skip
    one = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "g", one[:1], one[1:])
    assert activation_ranges._clipped(onnx.helper.make_model(graph)) == {"a": "b", "e": "f"}


def test_every_tensor_of_the_first_batches_is_shown(tmp_path: Path) -> None:
    model, seen = onnx.load(tiny_onnx.classifier(tmp_path / "model.onnx", width=8)), []
    activation_ranges.collect(
        model, tmp_path, batches=BATCHES, methods=["minmax"], shown=2, on_batch=seen.append
    )
    assert len(seen) == 2
    convolutions = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    assert all(convolutions <= values.keys() for values in seen)
