from __future__ import annotations

from pathlib import Path

import int8_file
import numpy as np
import onnx
import pytest
import tiny_onnx
from onnx import numpy_helper

from fettle.hardware.runtimes import ort
from fettle.quantize import graph_cleanup


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The int8 file as it ships, and the same one before it is made compact."""
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=32)
    paths = tmp_path / "int8.onnx", tmp_path / "wordy.onnx"
    batches = [tiny_onnx.images(60)]
    int8_file.write(model, paths[0], batches=batches, calibrate="minmax")
    with monkeypatch.context() as patch:
        patch.setattr(graph_cleanup, "compact", lambda *_, **__: None)
        int8_file.write(model, paths[1], batches=batches, calibrate="minmax")
    return paths


def test_the_compact_file_answers_the_same(both: tuple[Path, Path]) -> None:
    images = tiny_onnx.images(90, seed=3)
    ours, theirs = (ort.open(path, threads=1).run(images) for path in both)
    # a float bias is rounded by the runtime, to the same step but for float32's own rounding
    assert np.abs(ours - theirs).max() <= 2e-3 * np.abs(theirs).max()


def test_it_is_smaller_by_more_than_half_of_what_is_no_weight(both: tuple[Path, Path]) -> None:
    weights = 32 * 9 + 32 * 9 + 32 * 64 * 3
    ours, theirs = (path.stat().st_size - weights for path in both)
    assert ours < 0.5 * theirs


def test_constants_are_kept_once_and_used(both: tuple[Path, Path]) -> None:
    graph = onnx.load(both[0]).graph
    held = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    kinds = [(str(one.dtype), one.shape, one.tobytes()) for one in held]
    assert len(set(kinds)) == len(kinds)
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used


def test_names_are_short_but_for_inputs_outputs_and_heavy_nodes(both: tuple[Path, Path]) -> None:
    graph = onnx.load(both[0]).graph
    assert [one.name for one in (*graph.input, *graph.output)] == ["input", "logits"]
    assert [node.name for node in graph.node if node.name] == ["conv1", "conv2", "gemm"]
    inside = {name for node in graph.node for name in node.output} - {"logits"}
    assert max(len(name) for name in inside) <= 2


def test_numbers_are_written_in_base_36() -> None:
    assert [graph_cleanup._number(n) for n in (0, 35, 36, 1295, 1296)] == [
        "0",
        "z",
        "10",
        "zz",
        "100",
    ]
