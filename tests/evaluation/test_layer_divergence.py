from __future__ import annotations

from pathlib import Path

import int8_file
import numpy as np
import onnx
import pytest
import tiny_onnx

from fettle.errors import ModelError
from fettle.evaluation import layer_divergence


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model = tiny_onnx.classifier(tmp_path / "model.onnx", width=8)
    int8_file.write(
        model, tmp_path / "int8.onnx", batches=[tiny_onnx.images(60)], calibrate="minmax"
    )
    return model, tmp_path / "int8.onnx"


def break_layer(path: Path, name: str) -> None:
    """Reverse the output channels of one layer's int8 weights."""
    graph = onnx.load(path).graph
    node = next(n for n in graph.node if n.name == name)
    weight = next(n.input[0] for n in graph.node if node.input[1] in n.output)
    tiny_onnx.replace_weight(path, weight, tiny_onnx.weights(path)[weight][::-1].copy())


def test_sound_int8_parts_nowhere(files: tuple[Path, Path]) -> None:
    layers = layer_divergence.compare_files(*files, tiny_onnx.images(30))
    assert [layer.name for layer in layers] == ["conv1", "conv2", "gemm"]
    assert min(layer.ratio_db for layer in layers) > 20
    assert layer_divergence.describe_divergence(layers) is None
    assert (
        layer_divergence.describe_divergence(
            layer_divergence.compare_runtime(files[1], tiny_onnx.images(30))
        )
        is None
    )


@pytest.mark.parametrize(
    ("name", "before"),
    [("conv1", "it is the first"), ("conv2", "those before it"), ("gemm", "those before it")],
)
def test_the_layer_that_was_broken_is_named(
    files: tuple[Path, Path], name: str, before: str
) -> None:
    break_layer(files[1], name)
    text = layer_divergence.describe_divergence(
        layer_divergence.compare_files(*files, tiny_onnx.images(30))
    )
    assert text is not None
    assert text.startswith(f"the first layer that diverges is '{name}' (")
    assert before in text


def test_a_file_is_the_same_as_itself(files: tuple[Path, Path]) -> None:
    layers = layer_divergence.compare_files(files[0], files[0], tiny_onnx.images(5))
    assert {layer.ratio_db for layer in layers} == {layer_divergence.SAME_DB}


def test_values_that_are_no_numbers_part(files: tuple[Path, Path]) -> None:
    ours = np.ones((2, 3), np.float32)
    assert (
        layer_divergence.ratio_db(ours, np.full((2, 3), np.nan, np.float32))
        == -layer_divergence.SAME_DB
    )
    assert layer_divergence.ratio_db(ours, np.ones((2, 4), np.float32)) == -layer_divergence.SAME_DB


def test_files_without_a_layer_in_common_cannot_be_compared(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    other = onnx.load(files[0])
    for node in other.graph.node:
        node.name = f"another_{node.name}"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ModelError) as caught:
        layer_divergence.compare_files(files[0], tmp_path / "other.onnx", tiny_onnx.images(5))
    assert str(caught.value) == (
        "two versions of a model cannot be compared layer by layer: got 3 and 3 named layers, none "
        "in common; Conv, Gemm, MatMul keep their names. Fix: compare files that were made from "
        "one another."
    )
